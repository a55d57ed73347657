"""Choice of the kind and name of the feature that a column becomes."""

import itertools
import re
from typing import TypeAlias

import polars as pl

from models.features.spec import RESERVED_KEYS, FeatureConfig
from pipeline.init.column_profile import ColumnProfile
from pipeline.init.format_detection import NUMBER, all_match, are_numbers

_MAX_CODES = 20
_MAX_CATEGORIES = 50
# Minimum number of rows per value; with fewer rows, values are almost IDs of the rows.
_ROWS_PER_CODE = 5
_ROWS_PER_VALUE = 2
_SKEW = 20
_NUMBER_SHARE = 0.8
_BUCKETS = 16
_TEXT_WORDS = 1.8
# Minimum share of rows that contain a separator, because sentences and names contain commas too.
_SEPARATORS = {"|": 0.1, ";": 0.3, ",": 0.4}
_ROWS_PER_PART = 5
_MAX_PART_WORDS = 3
_ADDRESS_SHARE = 0.9
_ADDRESS = r"(?i)(://|^[./\\]|\.(jpe?g|png|gif|webp|svg|html?)$)"
_CODE_NAME = re.compile(r"(?i)(^|_)((zip|postal|post)(_?code)?|phone|isbn|ean|upc)$")
_ID_NAME = re.compile(r"(?i)(^|_)(id|uuid|guid|key|hash|index)$|[a-z]Id$")
_LIST_FORMATS = {"json": "JSON", "python": "Python"}

# The settings of a feature without `column`, or None for a column that is left out; and the reason.
Decision: TypeAlias = tuple[FeatureConfig | None, str]


def decide_kind(column: ColumnProfile) -> Decision:
    """Choose the feature that a column becomes from its name and the statistics of its values."""
    if column.content == "other":
        return _left_out("its type cannot be read as a feature")
    if column.num_present == 0 or column.values.is_empty():
        return _left_out("no row has a value")
    if column.num_distinct == 1:
        return _left_out(f"every row has the same value, {column.values[0][:40]!r}")
    if column.problem:
        return _left_out(column.problem)
    if column.content == "time":
        return _left_out("times; turn them into a number such as the age in days")
    if column.content == "list":
        return _of_list(column)
    if column.content == "boolean":
        return _categorical("yes or no")
    if column.content == "number":
        return _of_numbers(column)
    return _of_strings(column)


def _of_numbers(column: ColumnProfile) -> Decision:
    numbers = column.numbers
    if numbers.is_empty():
        return _left_out("no finite numbers")
    low, median, high = (float(numbers.quantile(q, "nearest") or 0) for q in (0, 0.5, 1))
    distinct = column.num_distinct
    if _CODE_NAME.search(column.name):
        return _left_out("a code, not a quantity")
    if column.number_format is None and (numbers == numbers.floor()).all():
        all_differ = distinct == column.num_present and distinct > _MAX_CODES
        if all_differ and (_ID_NAME.search(column.name) or high - low < 2 * distinct):
            return _left_out("a different integer in every row, like an ID")
        if _ID_NAME.search(column.name):
            if distinct * _ROWS_PER_VALUE <= column.num_present:
                return _categorical(f"{distinct:,} IDs")
            return _left_out("an ID in almost every row")
        if distinct <= _MAX_CODES and distinct * _ROWS_PER_CODE <= column.num_present:
            return _categorical(f"{distinct} integer codes")
    number_format = column.number_format
    shown = f"{low:g} to {high:g}"
    if number_format is not None:
        longest = column.values.str.len_chars().arg_max() or 0
        shown += f", read from text such as {column.values[longest]!r}"
    if low >= 0 and high > _SKEW * max(median, 1e-9) and distinct > _BUCKETS:
        feature = FeatureConfig(kind="numeric", buckets=_BUCKETS, number_format=number_format)
        return feature, f"{shown}, half up to {median:g}: skewed"
    return FeatureConfig(kind="numeric", number_format=number_format), shown


def _of_strings(column: ColumnProfile) -> Decision:
    distinct, present, values = column.num_distinct, column.num_present, column.values
    if _mean(values.str.contains(_ADDRESS)) > _ADDRESS_SHARE:
        return _left_out("URLs or paths")
    if _CODE_NAME.search(column.name):
        return _left_out("codes that few rows share")
    if (share := _mean(values.str.contains(NUMBER))) > _NUMBER_SHARE:
        return _left_out(f"numbers except in {1 - share:.1%} of the rows; leave those empty")
    is_formatted = are_numbers(values)
    if is_formatted.all():
        return _left_out(f"numbers in no format that fits all, first {values[0][:40]!r}")
    for separator, least in _SEPARATORS.items():
        if values.str.contains(separator, literal=True).sum() < least * present:
            continue
        parts = values.str.split(separator).explode().str.strip_chars()
        parts = parts.filter(parts != "")
        if _is_small_vocabulary(parts):
            return _categorical(f"{parts.n_unique():,} values, several per row", separator)
    if (share := _mean(is_formatted)) > _NUMBER_SHARE:
        other = values.filter(~is_formatted)[0][:40]
        return _left_out(f"numbers except in {1 - share:.1%} of the rows, such as {other!r}")
    is_repeated = distinct * _ROWS_PER_VALUE <= present
    words = _mean(values.str.count_matches(r"[^\s_-]+"))
    if words >= _TEXT_WORDS and not (is_repeated and distinct <= _MAX_CATEGORIES):
        return FeatureConfig(kind="text"), f"{words:.1f} words per row"
    if is_repeated:
        return _categorical(f"{distinct:,} values")
    return _left_out(f"{distinct:,} values in {present:,} rows, almost an ID")


def _of_list(column: ColumnProfile) -> Decision:
    if all_match(column.values, NUMBER) and column.values.str.contains(r"[.eE]").any():
        return _left_out("lists of numbers with fractions, like a vector")
    for separator in ("|", ";", "\t"):
        if not column.values.str.contains(separator, literal=True).any():
            reason = f"lists of {column.num_distinct:,} values"
            if column.list_format is not None:
                reason += f" as {_LIST_FORMATS[column.list_format]} text"
            feature = FeatureConfig(
                kind="categorical", separator=separator, list_format=column.list_format
            )
            return feature, reason
    return _left_out("lists whose items contain every separator")


def _is_small_vocabulary(parts: pl.Series) -> bool:
    if parts.is_empty() or parts.n_unique() * _ROWS_PER_PART > parts.len():
        return False
    return _mean(parts.unique().str.count_matches(r"[^\s]+")) <= _MAX_PART_WORDS


def _mean(series: pl.Series) -> float:
    found = series.cast(pl.Float64).mean()
    return float(found) if isinstance(found, int | float) else 0.0


def _categorical(reason: str, separator: str | None = None) -> Decision:
    return FeatureConfig(kind="categorical", separator=separator), reason


def _left_out(reason: str) -> Decision:
    return None, reason


def safe_feature_name(column: str, side: str, taken: set[str]) -> str:
    """Return a feature name for a column that is valid in Examples and not in `taken`.

    If the column's name is not available, it gets the prefix `side`: `query` or `candidate`.
    """
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", column).strip("_") or "feature"
    prefixed = f"{side}_{plain}"
    unavailable = RESERVED_KEYS | taken
    names = [plain] if plain[0].isalpha() else []
    numbered = (f"{prefixed}_{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain(names, [prefixed], numbered) if n not in unavailable)
