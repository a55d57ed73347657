"""Connection to ML Metadata, and queries that several modules share.

This module has no slow imports, because a run reads ML Metadata before it imports TensorFlow and
TFX.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TypeAlias

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError, MetadataUnreachableError

Artifact: TypeAlias = metadata_store_pb2.Artifact
Execution: TypeAlias = metadata_store_pb2.Execution

# TFX's context types. A pipeline has one context. Its child contexts are one per run, whose name is
# the run ID (not unique across pipelines in a database), and one per component, whose name is
# `PIPELINE.COMPONENT`.
PIPELINE_TYPE = "pipeline"
RUN_TYPE = "pipeline_run"
NODE_TYPE = "node"

_MYSQL_PORT = 3306


def connection_config(config: PipelineConfig) -> metadata_store_pb2.ConnectionConfig:
    """Return the connection settings of ML Metadata.

    Raises:
        ConfigError: The password file cannot be read.
    """
    settings = config.metadata
    connection = metadata_store_pb2.ConnectionConfig()
    if settings.backend == "sqlite":
        connection.sqlite.filename_uri = str(_database_file(config))
        connection.sqlite.connection_mode = (
            metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        )
        return connection
    mysql = connection.mysql
    # For "localhost", the MySQL client would use a Unix socket and ignore the port.
    mysql.host = "127.0.0.1" if settings.host == "localhost" else settings.host
    mysql.port = settings.port or _MYSQL_PORT
    mysql.user, mysql.database = settings.user, settings.database
    password = _password(config)
    if password is not None:
        mysql.password = password
    return connection


def has_metadata(config: PipelineConfig) -> bool:
    """Return whether the SQLite file exists; always True for MySQL.

    Check this before `open_store`, which creates a missing SQLite file.
    """
    return config.metadata.backend != "sqlite" or _database_file(config).exists()


def open_store(config: PipelineConfig) -> MetadataStore:
    """Connect to ML Metadata; the tables of a new database are created.

    Raises:
        ConfigError: The password file cannot be read.
        MetadataUnreachableError: The connection failed.
    """
    try:
        return MetadataStore(connection_config(config))
    except RuntimeError as error:  # ML Metadata raises no more specific error.
        settings = config.metadata
        database = (
            _database_file(config)
            if settings.backend == "sqlite"
            else f"{settings.backend} at {settings.host}, database {settings.database!r}, as "
            f"{settings.user!r}"
        )
        raise MetadataUnreachableError(
            f"cannot connect to ML Metadata ({database}): {str(error).strip()}"
        ) from error


def executions_of(store: MetadataStore, context_type: str, name: str) -> dict[int, Execution]:
    """Return the executions of a context by ID; empty if the context does not exist."""
    context = store.get_context_by_type_and_name(context_type, name)
    if context is None:
        return {}
    return {found.id: found for found in store.get_executions_by_context(context.id)}


def newest_execution(
    store: MetadataStore, project: str, component: str, run_id: str
) -> Execution | None:
    """Return the newest execution of a component in a run, or None if there is none."""
    of_component = executions_of(store, NODE_TYPE, f"{project}.{component}")
    tries = of_component.keys() & executions_of(store, RUN_TYPE, run_id).keys()
    return of_component[max(tries)] if tries else None


def outputs_of(store: MetadataStore, executions: Collection[int]) -> list[Artifact]:
    """Return the outputs of executions, given by their IDs, in the order of the executions."""
    events = store.get_events_by_execution_ids(sorted(executions)) if executions else []
    made_by = {
        event.artifact_id: event.execution_id
        for event in events
        if event.type == metadata_store_pb2.Event.OUTPUT
    }
    artifacts = store.get_artifacts_by_id(list(made_by)) if made_by else []
    return sorted(artifacts, key=lambda artifact: made_by[artifact.id])


def component_of(store: MetadataStore, execution: Execution) -> str:
    """Return the name of the component that an execution belongs to."""
    for context in store.get_contexts_by_execution(execution.id):
        if context.type == NODE_TYPE:
            return str(context.name.rpartition(".")[2])
    return str(execution.type)


def _database_file(config: PipelineConfig) -> Path:
    return config.run_dir / "metadata.sqlite"


def _password(config: PipelineConfig) -> str | None:
    if config.metadata.password_file is None:
        return None
    path = config.resolve(config.metadata.password_file)
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise ConfigError(
            f"`metadata.password_file` must be a file whose first line is the password; cannot "
            f"read one from {path}: {error}"
        ) from error
