"""Artifact types of ingestion beside the Examples."""

from tfx.types.artifact import Artifact


class RejectedRows(Artifact):
    """The rows that were put aside: `rejected.parquet`, which may be empty."""

    TYPE_NAME = "RejectedRows"


class IngestReport(Artifact):
    """What ingestion found and did: `ingest_report.json`."""

    TYPE_NAME = "IngestReport"
