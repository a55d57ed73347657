"""Queries, and their conversion to the input tensors of a signature."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from serving.clients.model import SignatureSpec, Tensor, TensorSpec, shown
from serving.errors import InvalidArgumentError

HISTORY = "history"
EXCLUDE = "exclude"
EXCLUDE_SEEN = "exclude_seen"
TIME = "time"
# An input with this prefix contains the allowed values of a candidate feature.
ALLOW_PREFIX = "allow_"

FeatureValue = str | float | int | Iterable[str] | Iterable[float] | None

_MISSING: Any = object()
FLOATS = ("float", "double")
# The largest number of each type.
_LIMITS = {
    "float": (2 - 2**-23) * 2.0**127,
    "double": sys.float_info.max,
    "int32": 2**31 - 1,
    "int64": 2**63 - 1,
}


@dataclasses.dataclass(frozen=True)
class Query:
    """One query for recommendations or an embedding.

    Lists may be any iterables, such as NumPy arrays or generators, and values may be NumPy scalars;
    they become tuples and plain values. None means that an attribute or a feature is not given.

    Attributes:
        query_id: The query id, for example a user id; "" if there is none.
        history: Candidate ids of past events, oldest first.
        features: The query's features by name: strings, numbers, or lists of them. Missing
            features are treated as unknown.
        exclude: Candidate ids that must not be returned.
        filters: Allowed values by candidate feature. A candidate is returned only if, for each
            of these features, it has an allowed value. An empty list allows all values.
        exclude_seen: Whether candidates of the history must not be returned, also of the history
            that the model keeps.
        time: The moment of the query in seconds since 1970, at which candidates must be available;
            None is the present one.
    """

    query_id: str = ""
    history: Sequence[str] = ()
    features: Mapping[str, FeatureValue] = dataclasses.field(default_factory=dict)
    exclude: Sequence[str] = ()
    filters: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    exclude_seen: bool = False
    time: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = plain(getattr(self, field.name))
            if field.name in ("features", "filters"):
                value = _named_values(field.name, value)
            elif value is None:
                value = field.default
            elif field.name == "exclude_seen" and not isinstance(value, bool):
                raise InvalidArgumentError(f"exclude_seen must be a bool, got {shown(value)}")
            elif field.name in ("history", "exclude") and not isinstance(value, tuple):
                raise InvalidArgumentError(
                    f"{field.name!r} must be a list of strings, got {shown(value)}"
                )
            object.__setattr__(self, field.name, value)

    @property
    def is_restricted(self) -> bool:
        """Return whether the query has exclusions or filters."""
        return bool(self.exclude or self.filters or self.exclude_seen)


def plain(value: Any) -> Any:
    """Convert iterables, except strings and mappings, to tuples, and scalars to Python values.

    NumPy arrays and scalars and the columns of pandas and PyArrow have a method `tolist`. Bytes
    become strings if they are valid UTF-8.
    """
    if isinstance(value, (str, Mapping)):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    to_list = getattr(value, "tolist", None)
    if callable(to_list):
        value = to_list()
    # A data frame is iterable too, but its items are the names of its columns.
    is_named = isinstance(value, Mapping) or hasattr(value, "keys")
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) and not is_named:
        try:
            return tuple([item if type(item) is str else plain(item) for item in value])
        except TypeError:  # A scalar of a class whose arrays are iterable.
            return value
    return value


def _named_values(argument: str, values: Any) -> dict[str, Any]:
    """Return the features or filters that are given."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InvalidArgumentError(f"{argument} must be a mapping by name, got {shown(values)}")
    found = {name: plain(value) for name, value in values.items()}
    if argument == "filters":
        found = {name: None if isinstance(v, tuple) and not v else v for name, v in found.items()}
    return {name: value for name, value in found.items() if value is not None}


def find_id_name(signature: SignatureSpec, given: str | None, argument: str) -> str:
    """Return the name of the input that takes the id."""
    options = [
        name
        for name, spec in sorted(signature.inputs.items())
        if spec.dtype == "string" and spec.rank == 1 and name not in (HISTORY, EXCLUDE)
    ]
    if given is not None:
        if given not in list(signature.inputs):
            raise InvalidArgumentError(
                f"{argument} must be an input of {signature.name!r}, such as "
                f"{_quoted(options)}, got {given!r}"
            )
        return given
    if len(options) == 1:
        return options[0]
    raise InvalidArgumentError(
        f"Several inputs of {signature.name!r} could take the id: {_quoted(options)}. "
        f"Pass {argument} to the client."
    )


def build_inputs(
    signature: SignatureSpec, id_name: str, queries: Sequence[Query]
) -> dict[str, Tensor]:
    """Return the input tensors for a batch of queries.

    Missing values become "", NaN or, for times, the lowest int64, and lists are padded with "" or
    NaN at the end. The model treats these as unknown.
    """
    for query in queries:
        _check_names(signature, id_name, query)
    return {
        name: _column(name, spec, [_value(query, name, id_name) for query in queries])
        for name, spec in signature.inputs.items()
    }


def _check_names(signature: SignatureSpec, id_name: str, query: Query) -> None:
    given = {
        HISTORY: query.history,
        EXCLUDE: query.exclude,
        EXCLUDE_SEEN: query.exclude_seen,
        TIME: query.time,
    }
    for name, value in given.items():
        if value and name not in signature.inputs:
            raise InvalidArgumentError(f"The model's signature {signature.name!r} takes no {name}")
    allowing = {name for name, spec in signature.inputs.items() if _is_filter(name, spec)}
    for name in query.filters:
        if f"{ALLOW_PREFIX}{name}" not in allowing:
            raise InvalidArgumentError(
                f"The model's signature {signature.name!r} has no filter {name!r}; "
                + _suggestion(str(name), {allow.removeprefix(ALLOW_PREFIX) for allow in allowing})
            )
    features = set(signature.inputs) - {id_name, *given}
    for name in query.features:
        if name not in features:
            raise InvalidArgumentError(
                f"The model has no feature {name!r}; {_suggestion(str(name), features - allowing)}"
            )


def _is_filter(name: str, spec: TensorSpec) -> bool:
    return name.startswith(ALLOW_PREFIX) and spec.rank == 2


def _suggestion(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"it has {_quoted(known)}"


def _value(query: Query, name: str, id_name: str) -> Any:
    given: dict[str, Any] = {
        id_name: query.query_id,
        HISTORY: query.history,
        EXCLUDE: query.exclude,
        EXCLUDE_SEEN: query.exclude_seen,
    }
    if query.time is not None:
        given[TIME] = query.time
    if name.startswith(ALLOW_PREFIX) and (allowed := query.filters.get(name[len(ALLOW_PREFIX) :])):
        return allowed
    return given[name] if name in given else query.features.get(name, _MISSING)


def _column(name: str, spec: TensorSpec, values: list[Any]) -> Tensor:
    if spec.rank == 2:
        return _padded(name, spec, values)
    column = [_missing_value(name, spec) if value is _MISSING else value for value in values]
    for value in column:
        if not _has_type(value, spec.dtype):
            raise InvalidArgumentError(
                f"{name!r} must be {_needed(value, spec)}, got {shown(value)}"
            )
    return Tensor(spec.dtype, (len(column),), column)


def _padded(name: str, spec: TensorSpec, values: list[Any]) -> Tensor:
    rows = [() if value is _MISSING else value for value in values]
    for row in rows:
        if not isinstance(row, tuple):
            raise InvalidArgumentError(
                f"{name!r} must be a list of {spec.dtype}s, got {shown(row)}"
            )
        for item in row:
            if not _has_type(item, spec.dtype):
                raise InvalidArgumentError(
                    f"{name!r} must be a list of {spec.dtype}s; each must be "
                    f"{_needed(item, spec)}, got {shown(item)}"
                )
    width = max((len(row) for row in rows), default=0)
    if spec.shape and spec.shape[1] is not None:
        if width > spec.shape[1]:
            raise InvalidArgumentError(
                f"{name!r} must have at most {spec.shape[1]} items, got {width}"
            )
        width = spec.shape[1]
    padding = "" if spec.dtype == "string" else float("nan")
    padded = [item for row in rows for item in (*row, *[padding] * (width - len(row)))]
    return Tensor(spec.dtype, (len(rows), width), padded)


def _missing_value(name: str, spec: TensorSpec) -> Any:
    if spec.dtype == "string":
        return ""
    if spec.dtype in FLOATS:
        return float("nan")
    if spec.dtype == "int64":  # a time
        return -(2**63)
    raise InvalidArgumentError(
        f"The feature {name!r} must be given, because {spec.dtype} has no value for unknown"
    )


def _has_type(value: Any, dtype: str) -> bool:
    if dtype == "string":
        return isinstance(value, str)
    if isinstance(value, bool):
        return dtype == "bool"
    if not isinstance(value, (int, float) if dtype in FLOATS else int):
        return False
    limit = _LIMITS.get(dtype)
    # NaN, which is not equal to itself, means an unknown value.
    return limit is None or value != value or -limit - 1 <= value <= limit


def _needed(value: Any, spec: TensorSpec) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"a {spec.dtype}" + (" within its range" if is_number and spec.dtype in _LIMITS else "")


def _quoted(names: Collection[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"
