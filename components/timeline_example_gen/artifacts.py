"""Artifact types of ingestion beside the Examples."""

from tfx.types.artifact import Artifact


class RejectedRows(Artifact):
    """The rows that were put aside: `rejected.parquet`, which may be empty."""

    TYPE_NAME = "components.RejectedRows"


class IngestReport(Artifact):
    """What ingestion found and did: `ingest_report.json`.

    Beside it `added_candidates.parquet`: the ids that only training events have.
    """

    TYPE_NAME = "components.IngestReport"
