"""Where ML Metadata lies. Nothing slow is imported here: a run looks into it before all else."""

import re
from pathlib import Path

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.runs.postgresql_store import adapted

_DEFAULT_PORTS = {"mysql": 3306, "postgresql": 5432}


class MetadataUnreachableError(Exception):
    """The database does not answer or refuses; running again helps when it does."""


def connection_config(config: PipelineConfig) -> metadata_store_pb2.ConnectionConfig:
    """Returns how ML Metadata is reached.

    Raises:
        ConfigError: The file of the password cannot be read.
    """
    settings = config.metadata
    connection = metadata_store_pb2.ConnectionConfig()
    if settings.backend == "sqlite":
        connection.sqlite.filename_uri = str(_database_file(config))
        connection.sqlite.connection_mode = (
            metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        )
        return connection
    port = settings.port or _DEFAULT_PORTS[settings.backend]
    password = _password(config)
    if settings.backend == "mysql":
        mysql = connection.mysql
        # That name makes MySQL's client look for a socket, whatever the port.
        mysql.host = "127.0.0.1" if settings.host == "localhost" else settings.host
        mysql.port = port
        mysql.user, mysql.database = settings.user, settings.database
        if password is not None:
            mysql.password = password
        return connection
    postgresql = connection.postgresql
    postgresql.host, postgresql.port = settings.host, str(port)
    postgresql.user, postgresql.dbname = _quoted(settings.user), settings.database
    if password is not None:
        postgresql.password = _quoted(password)
    return connection


def has_metadata(config: PipelineConfig) -> bool:
    """Whether there can be anything to read; asking a missing file would make it."""
    return config.metadata.backend != "sqlite" or _database_file(config).exists()


def open_store(config: PipelineConfig) -> MetadataStore:
    """Connects; a new database gets its tables.

    Raises:
        ConfigError: The file of the password cannot be read.
        MetadataUnreachableError: There is no connection.
    """
    connection = connection_config(config)
    try:
        return adapted(MetadataStore(connection), connection)
    except RuntimeError as error:  # what ML Metadata raises then
        settings = config.metadata
        place = (
            _database_file(config)
            if settings.backend == "sqlite"
            else f"{settings.backend} at {settings.host}, database {settings.database!r}, as "
            f"{settings.user!r}"
        )
        raise MetadataUnreachableError(
            f"ML Metadata cannot be reached: {place}: {str(error).strip()}"
        ) from error


def _database_file(config: PipelineConfig) -> Path:
    return config.run_dir / "metadata.sqlite"


def _quoted(value: str | None) -> str:
    """As libpq's connection string wants it, which ML Metadata puts together without quotes."""
    text = value or ""
    if not re.search(r"[\s'\\]", text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _password(config: PipelineConfig) -> str | None:
    if config.metadata.password_file is None:
        return None
    path = config.resolve(config.metadata.password_file)
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise ConfigError(f"`metadata.password_file`: {path} holds no password: {error}") from error
