"""Settings of the ML Metadata database, which records runs, artifacts and the cache."""

import re
from typing import Literal

from pydantic import Field, model_validator

from models.settings import Settings


class MetadataConfig(Settings):
    """The database of ML Metadata. Its client cannot verify the certificate of a server."""

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

    @model_validator(mode="after")
    def _server_is_named(self) -> "MetadataConfig":
        if self.backend == "sqlite":
            for name, value in self:
                if name != "backend" and value is not None:
                    raise ValueError(
                        f"`metadata.{name}` needs `metadata.backend: mysql`; the backend is sqlite"
                    )
            return self
        absent = [name for name in ("host", "database", "user") if not getattr(self, name)]
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
