"""Declared columns of each source, and checks of their names and types in the files."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pyarrow as pa

from components.interactions.config import IdNormalization, IngestConfig, Source
from components.interactions.errors import ColumnError
from models.features.spec import EVENT_TYPE_KEY, RATING_KEY, ListFormat

# Columns of intermediate tables. The `#` avoids collisions with feature names.
FILE = "#file"
LINE = "#line"
TIME_US = "#time_us"

ColumnKind = Literal[
    "id", "time", "rating", "event_type", "number", "categorical", "text", "vector", "datetime"
]

_FEATURE_KINDS: dict[str, ColumnKind] = {
    "numeric": "number",
    "categorical": "categorical",
    "text": "text",
    "path": "categorical",
    "vector": "vector",
    "datetime": "datetime",
}


@dataclass(frozen=True)
class SourceColumn:
    """A column of a file, whose `kind` decides how its values are converted.

    `key` is its name in intermediate tables and, except for the time, in Examples. Only a
    multi-valued categorical feature has a separator, and only an ID has normalisations. The formats
    are those of numbers and lists that are text.
    """

    key: str
    column: str
    kind: ColumnKind
    separator: str | None = None
    normalizations: tuple[IdNormalization, ...] = ()
    number_format: str | None = None
    list_format: ListFormat | None = None
    dimension: int | None = None


def source_columns(config: IngestConfig, source: Source) -> tuple[SourceColumn, ...]:
    """Return the declared columns of a source, IDs first."""
    columns, data = config.spec.columns, config.data
    query_id = data.event_query_id_column or columns.query_id
    candidate_id = data.event_candidate_id_column or columns.candidate_id
    identifier = partial(SourceColumn, kind="id", normalizations=data.normalize_ids)
    if source == "interactions":
        optional: list[tuple[str, str | None, ColumnKind]] = [
            (TIME_US, columns.timestamp, "time"),
            (RATING_KEY, columns.rating, "rating"),
            (EVENT_TYPE_KEY, columns.event_type, "event_type"),
        ]
        rating = config.data.rating_format
        return (
            identifier(columns.query_id, query_id),
            identifier(columns.candidate_id, candidate_id),
            *(
                SourceColumn(key, name, kind, number_format=rating if kind == "rating" else None)
                for key, name, kind in optional
                if name is not None
            ),
            *(SourceColumn(name, name, "number") for name in columns.labels),
            *(
                SourceColumn(name, feature.column or name, "categorical")
                for name, feature in config.spec.context.items()
            ),
        )
    is_query = source == "queries"
    key = columns.query_id if is_query else columns.candidate_id
    id_column = (
        data.query_id_column or query_id if is_query else data.candidate_id_column or candidate_id
    )
    features = config.spec.query_features if is_query else config.spec.catalogue_features
    return (
        identifier(key, id_column),
        *(
            SourceColumn(
                name,
                f.column or name,
                _FEATURE_KINDS[f.kind],
                f.separator,
                number_format=f.number_format,
                list_format=f.list_format,
                dimension=f.dimension,
            )
            for name, f in features.items()
        ),
    )


def check_columns(
    file: str, names: Sequence[str], schema: pa.Schema | None, columns: Sequence[SourceColumn]
) -> None:
    """Check that a file has each declared column exactly once, with a type that can be read.

    `schema` has the types of the columns; None if they are bytes.

    Raises:
        ColumnError: A column is missing or duplicated, or its type cannot be read as its kind.
    """
    for column in columns:
        name = column.column
        if (count := names.count(name)) > 1:
            raise ColumnError(
                f"{file}: column names must be unique, but {count} columns are called {name!r}"
            )
        if not count:
            same = [other for other in names if plain_name(other) == plain_name(name)]
            nearest = same or difflib.get_close_matches(name, names, n=1, cutoff=0.0)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
            raise ColumnError(
                f"{file} has no column {name!r}{hint} Its columns: {', '.join(names)}"
            )
        if schema is None:
            continue
        kind = schema.field(name).type
        if not accepts(column.kind, kind):
            hint = "; write integers or text" if column.kind in ("id", "event_type") else ""
            raise ColumnError(
                f"{file}: column {name!r} is {kind}, which cannot be read as {column.kind}{hint}"
            )
        if column.kind in ("time", "datetime") and pa.types.is_float32(kind):
            raise ColumnError(
                f"{file}: column {name!r} is float, whose 24 bits of precision cannot hold the "
                "seconds of a present-day time; write integers, doubles or text"
            )


def check_same_columns(headers: Mapping[str, Sequence[str]]) -> None:
    """Check that all files of a source have the same columns; `headers` is by file name.

    Raises:
        ColumnError: A file has other columns than the first one.
    """
    first = next(iter(headers), "")
    for file, header in headers.items():
        more, fewer = ({*a} - {*b} for a, b in ((header, headers[first]), (headers[first], header)))
        if more or fewer:
            similar = [(a, b) for a in more for b in fewer if plain_name(a) == plain_name(b)]
            hint = "".join(f"; {a!r} and {b!r} look alike" for a, b in sorted(similar))
            raise ColumnError(
                f"all files of a source must have the same columns, but only one of {file} and "
                f"{first} has {', '.join(sorted(more | fewer))}{hint}"
            )


def plain_name(name: str) -> str:
    """Return the letters and digits of a name, in lower case."""
    return "".join(filter(str.isalnum, name)).lower()


def accepts(kind: ColumnKind, arrow_type: pa.DataType) -> bool:
    """Return whether values of an Arrow type can be read as a kind of column."""
    types = pa.types
    if kind == "vector":
        is_list = types.is_list(arrow_type) or types.is_large_list(arrow_type)
        is_list |= types.is_fixed_size_list(arrow_type)
        return bool(is_list and accepts("number", arrow_type.value_type))
    if types.is_dictionary(arrow_type):
        return accepts(kind, arrow_type.value_type)
    texts = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.null())
    if arrow_type in texts or types.is_integer(arrow_type):
        return True
    is_inexact = types.is_floating(arrow_type) or types.is_decimal(arrow_type)
    if kind in ("rating", "number"):
        return bool(is_inexact or types.is_boolean(arrow_type))
    is_time = types.is_timestamp(arrow_type) or types.is_date(arrow_type)
    if kind in ("time", "datetime"):
        return bool(is_inexact or is_time)
    if kind not in ("categorical", "text"):
        return False
    if types.is_list(arrow_type) or types.is_large_list(arrow_type):
        value_type = arrow_type.value_type
        return not types.is_nested(value_type) and accepts(kind, value_type)
    # Arrow can write these types as text.
    is_writable = is_time or types.is_time(arrow_type) or types.is_boolean(arrow_type)
    return bool(is_writable or (is_inexact and not types.is_float16(arrow_type)))
