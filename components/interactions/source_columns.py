"""Which columns of which file are read, and as what."""

from dataclasses import dataclass
from typing import Literal

from components.interactions.config import IngestConfig
from models.features.spec import EVENT_TYPE_KEY, RATING_KEY

Source = Literal["interactions", "queries", "candidates"]
SOURCES: tuple[Source, ...] = ("interactions", "queries", "candidates")

# Columns of spilled tables beside ids and features; `#` keeps them apart from feature names.
FILE = "#file"
ROW = "#row"
TIME_US = "#time_us"

ColumnKind = Literal["id", "time", "rating", "event_type", "number", "categorical", "text"]

_FEATURE_KINDS: dict[str, ColumnKind] = {
    "numeric": "number",
    "categorical": "categorical",
    "text": "text",
}


@dataclass(frozen=True)
class SourceColumn:
    """One column to read.

    Attributes:
        key: Its name in spilled tables and, but for the time, in Examples.
        column: Its name in the file.
        kind: What its values must be.
        separator: For a category that holds many values: what stands between them.
    """

    key: str
    column: str
    kind: ColumnKind
    separator: str | None = None


def source_columns(config: IngestConfig, source: Source) -> tuple[SourceColumn, ...]:
    """Returns the declared columns of a source, ids first."""
    columns = config.spec.columns
    if source == "interactions":
        declared = [
            SourceColumn(columns.query_id, columns.query_id, "id"),
            SourceColumn(columns.candidate_id, columns.candidate_id, "id"),
        ]
        if columns.timestamp is not None:
            declared.append(SourceColumn(TIME_US, columns.timestamp, "time"))
        if columns.rating is not None:
            declared.append(SourceColumn(RATING_KEY, columns.rating, "rating"))
        if columns.event_type is not None:
            declared.append(SourceColumn(EVENT_TYPE_KEY, columns.event_type, "event_type"))
        return tuple(declared)
    of_queries = source == "queries"
    key = columns.query_id if of_queries else columns.candidate_id
    features = config.spec.query_features if of_queries else config.spec.candidate_features
    return (
        SourceColumn(key, key, "id"),
        *(
            SourceColumn(
                name,
                feature.column or name,
                _FEATURE_KINDS[feature.kind],
                feature.separator,
            )
            for name, feature in features.items()
        ),
    )
