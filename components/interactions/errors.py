"""Errors of ingestion.

IngestError                 The input or a setting must change before the run can succeed.
├── NoInputError            No file matches, or the files have no rows.
├── MissingSpanError        A required span has not been delivered; retry when it has been.
├── QueryError              A BigQuery query cannot run: an extra or the credentials are missing.
├── UnreadableFileError     A file is damaged or does not have the expected format.
├── ColumnError             A declared column is missing, duplicated or has an unusable type.
├── BadRowsError            Rows have invalid values, and `ingest.bad_rows` is `stop`.
├── UnmatchedIdsError       Too many events or IDs have no row in the catalogue or the queries.
└── EmptySplitError         A split that must have events has none.
"""


class IngestError(Exception):
    """Base class of ingestion errors; a retry fails again until the input or a setting changes."""


class NoInputError(IngestError):
    """No file matches a pattern, or the matching files have no rows."""


class MissingSpanError(IngestError):
    """A required span has not been delivered."""


class QueryError(IngestError):
    """A BigQuery query cannot run in this environment."""


class UnreadableFileError(IngestError):
    """A file is damaged or does not have the expected format."""


class ColumnError(IngestError):
    """A declared column is missing, duplicated or has an unusable type."""


class BadRowsError(IngestError):
    """Rows have invalid values, and `ingest.bad_rows` is `stop`."""


class UnmatchedIdsError(IngestError):
    """Too many events or IDs have no row in the catalogue or the queries."""


class EmptySplitError(IngestError):
    """A split that must have events has none."""
