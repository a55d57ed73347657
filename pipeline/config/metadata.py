"""Settings of ML Metadata: where runs, artifacts and the cache are remembered."""

import re
from typing import Literal

from pydantic import Field, model_validator

from models.settings import Settings

_SERVER_ONLY = ("host", "port", "database", "user", "password_file", "ssl_ca")
_NEEDED = ("host", "database", "user")
# ML Metadata writes the name unquoted: into SQL always for MySQL, and for PostgreSQL into what it
# connects with, and into SQL only where the database is absent.
_DATABASE_NAMES = {
    "mysql": ("letters, digits, `_` and `$`", r"[0-9A-Za-z_$]+"),
    "postgresql": ("letters, digits, `_`, `$` and `-`", r"[0-9A-Za-z_$-]+"),
}


class MetadataConfig(Settings):
    """The database of ML Metadata."""

    backend: Literal["sqlite", "mysql", "postgresql"] = Field(
        "sqlite", description="sqlite: a file in the folder of the runs."
    )
    host: str | None = Field(None, description="Of the database server.")
    port: int | None = Field(
        None, ge=1, le=65535, description="If absent, 3306 for mysql and 5432 for postgresql."
    )
    database: str | None = Field(None, description="Name of the database; made if absent.")
    user: str | None = Field(None, description="Who logs in.")
    password_file: str | None = Field(
        None, description="File whose first line is the password; none is sent if absent."
    )
    ssl_ca: str | None = Field(
        None, description="Refused: ML Metadata cannot check who answers; use a tunnel."
    )

    @model_validator(mode="after")
    def _server_is_named(self) -> "MetadataConfig":
        if self.backend == "sqlite":
            given = [name for name in _SERVER_ONLY if getattr(self, name) is not None]
            if given:
                raise ValueError(
                    f"`metadata.{given[0]}` is for mysql and postgresql; set `metadata.backend`"
                )
            return self
        if self.ssl_ca is not None:
            # Tried with ML Metadata 1.17: one fails whatever the certificate, the other is built
            # without TLS. An encrypted connection to whoever answers is not what is asked for.
            raise ValueError(
                "`metadata.ssl_ca`: ML Metadata cannot check a server's certificate, and speaks no "
                "TLS to postgresql; lead the connection through a tunnel, and set `metadata.host` "
                "to its near end"
            )
        absent = [name for name in _NEEDED if not getattr(self, name)]
        if absent:
            names = ", ".join(f"`metadata.{name}`" for name in absent)
            raise ValueError(f"`metadata.backend: {self.backend}` needs {names}")
        allowed, pattern = _DATABASE_NAMES[self.backend]
        if not re.fullmatch(pattern, self.database or ""):
            raise ValueError(
                f"`metadata.database` is {self.database!r}: for {self.backend} ML Metadata takes a "
                f"name of {allowed}"
            )
        return self
