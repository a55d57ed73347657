"""Where ML Metadata lies. Nothing slow is imported here: a run looks into it before all else."""

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline.config import PipelineConfig


def connection_config(config: PipelineConfig) -> metadata_store_pb2.ConnectionConfig:
    """Returns how ML Metadata is reached."""
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(config.run_dir / "metadata.sqlite")
    connection.sqlite.connection_mode = (
        metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    )
    return connection


def has_metadata(config: PipelineConfig) -> bool:
    """Whether there can be anything to read; asking a missing file would make it."""
    return (config.run_dir / "metadata.sqlite").exists()


def open_store(config: PipelineConfig) -> MetadataStore:
    """Connects; a new database gets its tables."""
    return MetadataStore(connection_config(config))
