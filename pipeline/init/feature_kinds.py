"""Choice of the kind and name of the feature that a column becomes."""

import itertools
import re
from typing import TypeAlias

import polars as pl

from models.features.spec import RESERVED_KEYS, FeatureConfig
from pipeline.init.column_profile import ColumnProfile, profile
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
# Separators of the levels of a path, the least ambiguous first.
_PATH_SEPARATORS = (">", "/", "|")
# Minimum share of the values of a path that have several levels, and of the names below the first
# level that occur below one other name only. Tags, such as `War|Drama`, occur below several.
_PATH_SHARE = 0.5
_ONE_PARENT_SHARE = 0.9
# Names of columns whose value a request has too, unlike that of a rating or an order number.
_CONTEXT_NAME = re.compile(
    r"(?i)(^|_)(device|platform|os|browser|client|app|channel|country|region|state|city|place"
    r"|location|language|locale|referrer|referer|traffic_source|utm_source|utm_medium)"
    r"(_?(type|name|code|category|class|id))?$"
)
_MIN_VARIED_SHARE = 0.5
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
    if (separator := _path_separator(values)) is not None:
        reason = f"{distinct:,} categories in a tree, such as {values[0]!r}"
        return FeatureConfig(kind="path", path_separator=separator), reason
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
        if column.list_length is None or column.list_format is not None:
            return _left_out("lists of numbers with fractions, of different lengths or as text")
        length = column.list_length
        return FeatureConfig(kind="vector", dimension=length), f"lists of {length} numbers"
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


def decide_context(column: pl.Series, candidates: pl.Series) -> Decision:
    """Choose the feature that a column of the events becomes, with the candidates of the events.

    It must have the name and the values of something that requests have too, such as the device.
    If nearly all events of a candidate have the same value, it describes the candidate.
    """
    if not _CONTEXT_NAME.search(column.name):
        return _left_out("its name does not say that requests have it")
    feature, reason = decide_kind(profile(column))
    if feature is None or feature.kind != "categorical" or feature.is_multivalued:
        return _left_out("not categorical")
    counts = pl.DataFrame({"candidate": candidates, "value": column}).drop_nulls()
    counts = counts.group_by("candidate", "value").len("events")
    # The events that do not have the most common value of all, and that of their candidate.
    by_value = counts.group_by("value").agg(pl.col("events").sum())["events"]
    by_candidate = counts.group_by("candidate").agg(pl.col("events").max())["events"]
    others = int(by_value.sum()) - by_value.to_numpy().max(initial=0)
    if int(by_value.sum()) - int(by_candidate.sum()) < _MIN_VARIED_SHARE * others:
        return _left_out("it describes the candidate")
    return feature, reason


def _path_separator(values: pl.Series) -> str | None:
    """Return the separator of the levels if the values are paths in a tree, such as `Home > Pans`.

    The first levels must be few, and a name must occur below one other name only.
    """
    distinct = values.unique()
    for separator in _PATH_SEPARATORS:
        inner = distinct.str.strip_chars(f"{separator} ")
        if inner.str.contains(separator, literal=True).sum() < _PATH_SHARE * distinct.len():
            continue
        levels = inner.str.split(separator).list.eval(pl.element().str.strip_chars())
        roots = levels.list.first()
        if roots.n_unique() * _ROWS_PER_VALUE > distinct.len() or values.len() < 2 * distinct.len():
            continue
        pairs = pl.DataFrame({"parent": levels.list.head(-1), "name": levels.list.tail(-1)})
        # Each pair of a name and the one above it, of all levels.
        parent, name = (
            pl.col(side).list.slice(0, pl.col("name").list.len()) for side in ("parent", "name")
        )
        pairs = pairs.select(parent, name).filter(pl.col("name").list.len() > 0)
        pairs = pairs.explode("parent", "name").unique()
        parents = pairs.group_by("name").len()["len"]
        if _mean(parents == 1) >= _ONE_PARENT_SHARE and not pairs["name"].is_in(roots).any():
            return separator
    return None


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
