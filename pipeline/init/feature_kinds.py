"""Choice of the kind and name of the feature that a column becomes."""

import re
from dataclasses import dataclass

import polars as pl

from models.features.spec import RESERVED_KEYS, FeatureConfig
from pipeline.init.column_profile import ColumnProfile

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
_CODE_NAME = re.compile(r"(?i)(^|_)((zip|postal|post)(_?code)?|phone|isbn|ean|upc)$")
_ID_NAME = re.compile(r"(?i)(^|_)(id|uuid|guid|key|hash|index)$|[a-z]Id$")


@dataclass(frozen=True)
class KindDecision:
    """The feature that a column becomes, with the reason.

    Attributes:
        feature: Settings of the feature without `column`, or None if the column is left out.
        reason: Explanation of the decision for the user.
    """

    feature: FeatureConfig | None
    reason: str


def decide_kind(column: ColumnProfile) -> KindDecision:
    """Choose the kind of feature for a column from its name and the statistics of its values."""
    if column.content == "other":
        return _left_out("its type cannot be read as a feature")
    if column.num_present == 0 or column.values.is_empty():
        return _left_out("no row has a value")
    if column.num_distinct == 1:
        return _left_out(f"every row has the same value, {column.values[0][:40]!r}")
    if column.content == "time":
        return _left_out("times; turn them into a number such as the age in days")
    if column.content == "list":
        return _of_list(column)
    if column.content == "boolean":
        return _categorical("yes or no")
    if column.content == "number":
        return _of_numbers(column)
    return _of_strings(column)


def _of_numbers(column: ColumnProfile) -> KindDecision:
    numbers = column.numbers
    if numbers is None or numbers.is_empty():
        return _left_out("no finite numbers")
    low, median, high = (float(numbers.quantile(q, "nearest") or 0) for q in (0, 0.5, 1))
    distinct = column.num_distinct
    if _CODE_NAME.search(column.name):
        return _left_out("a code, not a quantity")
    if column.is_integer:
        all_differ = distinct == column.num_present and distinct > _MAX_CODES
        if all_differ and (_ID_NAME.search(column.name) or high - low < 2 * distinct):
            return _left_out("a different integer in every row, like an ID")
        if _ID_NAME.search(column.name):
            if distinct * _ROWS_PER_VALUE <= column.num_present:
                return _categorical(f"{distinct:,} IDs")
            return _left_out("an ID in almost every row")
        if distinct <= _MAX_CODES and distinct * _ROWS_PER_CODE <= column.num_present:
            return _categorical(f"{distinct} integer codes")
    shown = f"{low:g} to {high:g}"
    if low >= 0 and high > _SKEW * max(median, 1e-9) and distinct > _BUCKETS:
        feature = FeatureConfig(kind="numeric", buckets=_BUCKETS)
        return KindDecision(feature, f"{shown}, half up to {median:g}: skewed")
    return KindDecision(FeatureConfig(kind="numeric"), shown)


def _of_strings(column: ColumnProfile) -> KindDecision:
    distinct, present = column.num_distinct, column.num_present
    if column.address_share > 0.9:
        return _left_out("URLs or paths")
    if _CODE_NAME.search(column.name):
        return _left_out("codes that few rows share")
    if column.number_share > _NUMBER_SHARE:
        return _left_out(
            f"numbers except in {1 - column.number_share:.1%} of the rows; leave those empty"
        )
    for separator, least in _SEPARATORS.items():
        if column.values.str.contains(separator, literal=True).sum() < least * present:
            continue
        parts = column.values.str.split(separator).explode().str.strip_chars()
        parts = parts.filter(parts != "")
        if _is_small_vocabulary(parts):
            return _categorical(f"{parts.n_unique():,} values, several per row", separator)
    if distinct <= _MAX_CATEGORIES and distinct * _ROWS_PER_VALUE <= present:
        return _categorical(f"{distinct} values")
    if column.words >= _TEXT_WORDS and distinct > _MAX_CATEGORIES:
        return KindDecision(FeatureConfig(kind="text"), f"{column.words:.1f} words per row")
    if distinct * _ROWS_PER_VALUE <= present:
        return _categorical(f"{distinct:,} values")
    if column.words >= _TEXT_WORDS:
        return KindDecision(FeatureConfig(kind="text"), f"{column.words:.1f} words per row")
    return _left_out(f"{distinct:,} values in {present:,} rows, almost an ID")


def _of_list(column: ColumnProfile) -> KindDecision:
    for separator in ("|", ";", "\t"):
        if not column.values.str.contains(separator, literal=True).any():
            return _categorical(f"lists of {column.num_distinct:,} values", separator)
    return _left_out("lists whose items contain every separator")


def _is_small_vocabulary(parts: pl.Series) -> bool:
    if parts.is_empty() or parts.n_unique() * _ROWS_PER_PART > parts.len():
        return False
    words = parts.unique().str.count_matches(r"[^\s]+").mean()
    return isinstance(words, int | float) and words <= _MAX_PART_WORDS


def _categorical(reason: str, separator: str | None = None) -> KindDecision:
    return KindDecision(FeatureConfig(kind="categorical", separator=separator), reason)


def _left_out(reason: str) -> KindDecision:
    return KindDecision(None, reason)


SAFE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def safe_feature_name(column: str, side: str, taken: set[str]) -> str:
    """Return a unique feature name that is valid in Examples and signatures.

    Args:
        column: Name of the column in the file.
        side: `query` or `candidate`; a prefix of the name if the column's name is not available.
        taken: Names that are already in use.
    """
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", column).strip("_") or "feature"
    if not plain[0].isalpha():
        plain = f"{side}_{plain}"
    name = plain
    if name in RESERVED_KEYS or name in taken:
        name = f"{side}_{plain}"
    number = 2
    while name in RESERVED_KEYS or name in taken:
        name = f"{side}_{plain}_{number}"
        number += 1
    return name
