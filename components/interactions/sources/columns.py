"""Which columns of which file are read, and as what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from components.interactions.config import IngestConfig, Source
from components.interactions.errors import (
    ColumnError,
)
from components.interactions.sources.tfrecord import (
    ARROW_TYPES,
    FeatureKind,
)
from models.features.spec import EVENT_TYPE_KEY, RATING_KEY

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
    data = config.data
    key = columns.query_id if of_queries else columns.candidate_id
    id_column = data.query_id_column if of_queries else data.candidate_id_column
    features = config.spec.query_features if of_queries else config.spec.candidate_features
    return (
        SourceColumn(key, id_column or key, "id"),
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


def _check_types(config: IngestConfig, source: Source, path: str, schema: pa.Schema) -> None:
    for column in source_columns(config, source):
        position = schema.get_field_index(column.column)
        if position >= 0 and not _fits(schema.field(position).type, column.kind):
            raise ColumnError(
                f"{path}: column {column.column!r} is {schema.field(position).type}, which cannot "
                f"be read as {column.kind}"
            )


def _check_kinds(
    config: IngestConfig, source: Source, path: str, kinds: Mapping[str, FeatureKind]
) -> None:
    schema = pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])
    _check_types(config, source, path, schema)
    for column in source_columns(config, source):
        if column.kind == "time" and kinds.get(column.column) == "float":
            raise ColumnError(
                f"{path}: column {column.column!r} is float, whose 24 bits round the seconds of "
                "today to minutes; write times as int64 or bytes"
            )


def _fits(arrow_type: pa.DataType, kind: ColumnKind) -> bool:
    types = pa.types
    if types.is_dictionary(arrow_type):
        return _fits(arrow_type.value_type, kind)
    textual = (
        types.is_string(arrow_type)
        or types.is_large_string(arrow_type)
        or types.is_binary(arrow_type)
        or types.is_large_binary(arrow_type)
        or types.is_null(arrow_type)
    )
    if textual or types.is_integer(arrow_type):
        return True
    inexact = types.is_floating(arrow_type) or types.is_decimal(arrow_type)
    if kind in ("rating", "number"):
        return bool(inexact or types.is_boolean(arrow_type))
    moment = types.is_timestamp(arrow_type) or types.is_date(arrow_type)
    if kind == "time":
        return bool(inexact or moment)
    if kind not in ("categorical", "text"):
        return False
    if types.is_list(arrow_type) or types.is_large_list(arrow_type):
        value_type = arrow_type.value_type
        return not types.is_nested(value_type) and _fits(value_type, kind)
    # What Arrow can write as text.
    written = moment or types.is_time(arrow_type) or types.is_boolean(arrow_type)
    return bool(written or (inexact and not types.is_float16(arrow_type)))
