"""Settings of ML Metadata: where runs, artifacts and the cache are remembered."""

from typing import Literal

from pydantic import Field, model_validator

from models.settings import Settings

_SERVER_ONLY = ("host", "port", "database", "user", "password_file", "ssl_ca")
_NEEDED = ("host", "database", "user")


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
        None, description="PEM of the server's authority: encrypt, and check who answers."
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
        absent = [name for name in _NEEDED if not getattr(self, name)]
        if absent:
            names = ", ".join(f"`metadata.{name}`" for name in absent)
            raise ValueError(f"`metadata.backend: {self.backend}` needs {names}")
        return self
