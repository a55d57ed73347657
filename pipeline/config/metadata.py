"""Settings of the ML Metadata database, which records runs, artifacts and the cache."""

import re
from typing import Literal

from pydantic import Field, model_validator

from models.settings import Settings

_SERVER_ONLY = ("host", "port", "database", "user", "password_file", "ssl_ca")
_NEEDED = ("host", "database", "user")


class MetadataConfig(Settings):
    """The database of ML Metadata."""

    backend: Literal["sqlite", "mysql"] = Field(
        "sqlite", description="`sqlite` is a file in the run folder; `mysql` includes MariaDB."
    )
    host: str | None = Field(None, description="Host name of the database server.")
    port: int | None = Field(
        None, ge=1, le=65535, description="Port of the database server; 3306 if absent."
    )
    database: str | None = Field(
        None, description="Name of the database; created if it does not exist."
    )
    user: str | None = Field(None, description="User name for the database server.")
    password_file: str | None = Field(
        None, description="File whose first line is the password; no password is sent if absent."
    )
    ssl_ca: str | None = Field(
        None,
        description="Always refused: ML Metadata cannot verify a server. Use a tunnel.",
    )

    @model_validator(mode="after")
    def _server_is_named(self) -> "MetadataConfig":
        if self.backend == "sqlite":
            given = [name for name in _SERVER_ONLY if getattr(self, name) is not None]
            if given:
                raise ValueError(
                    f"`metadata.{given[0]}` needs `metadata.backend: mysql`; the backend is sqlite"
                )
            return self
        if self.ssl_ca is not None:
            # With ML Metadata 1.17, the MySQL client fails with every certificate. Encryption
            # without verification of the server would not be what the user asked for.
            raise ValueError(
                "`metadata.ssl_ca` is not supported: ML Metadata cannot check a server's "
                "certificate. Use a tunnel, and set `metadata.host` to its local end"
            )
        absent = [name for name in _NEEDED if not getattr(self, name)]
        if absent:
            names = ", ".join(f"`metadata.{name}`" for name in absent)
            raise ValueError(f"`metadata.backend: {self.backend}` needs {names}")
        # ML Metadata inserts the name into SQL statements without quotes.
        if not re.fullmatch(r"[0-9A-Za-z_$]+", self.database or ""):
            raise ValueError(
                "`metadata.database` must consist of letters, digits, `_` and `$`, got "
                f"{self.database!r}"
            )
        return self
