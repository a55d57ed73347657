"""What can go wrong in ingestion, told apart by what the caller can do about it."""

from typing import ClassVar


class IngestError(Exception):
    """The input cannot become Examples; running again does not help until it is changed."""

    retryable: ClassVar[bool] = False


class NoInputError(IngestError):
    """No file matches, or the files that match hold no rows."""


class MissingSpanError(IngestError):
    """A span that must be there has not been delivered; running again helps when it has."""


class QueryError(IngestError):
    """A query cannot be executed here: the extra, the credentials or the place is missing."""


class UnreadableFileError(IngestError):
    """A file is not what its format says: no CSV, no Parquet, a record that is cut off."""


class ColumnError(IngestError):
    """A declared column is missing, doubled or of a type that cannot serve."""


class BadRowsError(IngestError):
    """Rows that break the declaration, under `bad_rows: stop`."""


class EmptySplitError(IngestError):
    """The split settings leave no events for a split that must have some."""
