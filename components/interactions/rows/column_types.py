"""Convert raw columns to text, numbers and times, and mark invalid values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.config import IdNormalization
from components.interactions.rows.id_normalization import normalize
from components.interactions.rows.text_formats import parsed_lists, plain_numbers
from components.interactions.rows.time_formats import (
    patterned_as_iso_8601,
    respelt_as_iso_8601,
)
from components.interactions.sources.block import (
    CONTROL_CHARACTER,
    HOLDS_SEPARATOR,
    MISSING,
    NOT_A_LIST,
    NOT_A_NUMBER,
    NOT_A_TIME,
    NOT_A_VECTOR,
    NOT_IN_FORMAT,
    NOT_UTF8,
    SEVERAL,
    TIME_OUT_OF_RANGE,
    TOO_LARGE,
)
from models.features.spec import LARGEST_NUMBER, ListFormat

Mask = npt.NDArray[np.bool_]
Faults = tuple[tuple[str, Mask], ...]

_UNITS_PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST_S = -62_135_596_800  # 0001-01-01
_END_S = 253_402_300_800  # 10000-01-01
_INT64_MAX = 2**63 - 1
_US_PER_S = 10**6
_S_PER_DAY = 86_400.0
_EXCEL_1970 = 25_569.0  # Excel's number for 1970-01-01

_CONTROL_CHARACTER = "[\\x00-\\x1f\\x7f]"
_ISO_8601 = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}(:\d{2}(:\d{2}(\.\d+)?)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$"
_ZONE = r"[ T][\d:.]+(Z|[+-]\d{2}(:?\d{2})?)$"


@dataclass(frozen=True)
class Values:
    """A converted column, and the rows that have invalid values.

    Attributes:
        array: Strings, float32 or int64 (microseconds since 1970, UTC) [n]. The value of a row with
            an invalid value is arbitrary.
        faults: Pairs of a reason and a mask of the rows that it applies to [n].
    """

    array: Any
    faults: Faults


def text(raw: Any) -> Values:
    """Convert values to strings; items of lists are joined by spaces."""
    kind = raw.type
    if pa.types.is_dictionary(kind):
        return text(raw.cast(kind.value_type))
    if _is_list(kind):
        return _joined(_without_nulls(raw), " ")[0]
    if pa.types.is_decimal(kind):
        return Values(_decimal_text(raw), ())
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return Values(raw.cast(pa.string()), ())
    strings = _cast_or_null(raw, pa.string())
    broken = _mask(pc.and_not(pc.is_null(strings), pc.is_null(raw)))
    return Values(strings, ((NOT_UTF8, broken),))


def categorical(
    raw: Any,
    separator: str | None,
    *,
    unwraps_lists: bool = False,
    list_format: ListFormat | None = None,
    missing_values: Sequence[str] = (),
) -> Values:
    """Convert categories to strings, in which `separator` divides the values of a row.

    Values of lists are joined, without nulls. A list is invalid if one of its values contains the
    separator, or if it has several values and there is no separator. `unwraps_lists` treats a list
    of one value like the value alone, which may contain separators. `list_format` is the format of
    lists that are text, whose items are left out if they equal one of `missing_values`.
    """
    if not _is_list(raw.type) and list_format is not None:
        faults, words, absent = _words(raw)
        lists = parsed_lists(_where(pc.invert(absent), words), list_format)
        unread = _mask(pc.and_not(pc.is_null(lists), absent))
        found = categorical(without_words(lists, missing_values), separator)
        return Values(found.array, (*faults, (NOT_A_LIST, unread), *found.faults))
    if not _is_list(raw.type):
        return text(raw)
    lists = _without_nulls(raw)
    if separator is None:
        first = single(lists)
        found = text(first.array)
        return Values(found.array, (*first.faults, *found.faults))
    joined, items = _joined(lists, separator)
    parted = _mask(pc.match_substring(items, separator).fill_null(False))
    rows = _rows_of_items(lists)[parted]
    ambiguous = np.zeros(len(lists), bool)
    ambiguous[rows] = _lengths(lists)[rows] > 1 if unwraps_lists else True
    return Values(joined.array, (*joined.faults, (HOLDS_SEPARATOR, ambiguous)))


def vector(raw: Any, dimension: int) -> Values:
    """Convert lists of `dimension` numbers to the bytes of float32 numbers.

    Null and empty lists become null. Bytes can be compared and joined as the other columns can.
    """
    if pa.types.is_fixed_size_list(raw.type):
        raw = raw.cast(pa.list_(raw.type.value_type))
    if not _is_list(raw.type):
        empty = pc.equal(pc.binary_length(raw.cast(pa.string())), 0)
        return Values(
            pa.nulls(len(raw), pa.binary()), ((NOT_A_VECTOR, ~_mask(empty.fill_null(True))),)
        )
    lengths = _lengths(raw)
    items = raw.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(lengths == dimension)
    of_rows = items[np.isin(_rows_of_items(raw), rows)].reshape(-1, dimension)
    is_good = (np.abs(of_rows) <= LARGEST_NUMBER).all(axis=1)  # False for NaN
    numbers = np.zeros((len(raw), dimension), np.float32)
    numbers[rows[is_good]] = of_rows[is_good]
    present = np.zeros(len(raw), bool)
    present[rows[is_good]] = True
    buffers = [None, pa.py_buffer(numbers.tobytes())]
    packed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(4 * dimension), len(raw), buffers).cast(
        pa.binary()
    )
    array = pc.if_else(pa.array(present), packed, pa.scalar(None, pa.binary()))
    return Values(array, ((NOT_A_VECTOR, (lengths > 0) & ~present),))


def single(raw: Any) -> Values:
    """Convert lists to their single values. Empty lists become null; longer lists are invalid."""
    lengths = _lengths(raw)
    positions = np.cumsum(lengths) - 1
    values = raw.flatten().take(pa.array(positions, mask=lengths != 1))
    return Values(values, ((SEVERAL, lengths > 1),))


def without_words(raw: Any, words: Sequence[str], separator: str | None = None) -> Any:
    """Replace values of text that equal one of `words` by null, ignoring spaces around them.

    The word "nan", in any case, also replaces the NaN of float columns.

    Such items of lists, and such parts of values with a separator, are replaced or left out.
    """
    if pa.types.is_dictionary(raw.type):
        return without_words(raw.cast(raw.type.value_type), words, separator)
    if _is_list(raw.type):
        return _lists_like(raw, _lengths(raw), without_words(raw.flatten(), words))
    if pa.types.is_floating(raw.type) and "nan" in {word.lower() for word in words}:
        return _where(pc.invert(pc.is_nan(raw)), raw)
    if raw.type not in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        return raw
    strings = text(raw).array
    if separator is not None:
        parts = without_words(pc.split_pattern(strings, separator), words)
        joined = pc.binary_join(_without_nulls(parts), separator).cast(raw.type)
        return pc.if_else(pc.is_valid(strings), joined, raw)
    trimmed = pc.utf8_trim_whitespace(strings)
    is_word = pc.is_in(trimmed, value_set=pa.array(words, trimmed.type))
    return pc.if_else(is_word, pa.scalar(None, raw.type), raw)


def identifier(raw: Any, normalizations: Sequence[IdNormalization] = ()) -> Values:
    """Convert IDs to strings; empty values and control characters are invalid.

    Vocabulary files have one entry per line, and models/features/preprocessing.py replaces spaces
    with a control character.
    """
    found = text(raw)
    ids = normalize(found.array, normalizations)
    empty = _mask(pc.equal(pc.binary_length(ids), 0).fill_null(True))
    control = _mask(pc.match_substring_regex(ids, _CONTROL_CHARACTER).fill_null(False))
    return Values(ids, (*found.faults, (MISSING, empty), (CONTROL_CHARACTER, control)))


def number(raw: Any, number_format: str | None = None, *, required: bool = False) -> Values:
    """Convert to float32. Empty values become null; if `required`, they are also invalid.

    The square of each number must be a finite float32. `number_format` is the format of numbers
    that are text, as in `FeatureConfig`.
    """
    faults: Faults = ()
    if _is_numeric(raw.type):
        absent, wide = pc.is_null(raw), raw.cast(pa.float64(), safe=False)
    else:
        faults, words, absent = _words(raw)
        if number_format is not None:
            plain = plain_numbers(words, number_format)
            unread = pc.and_not(pc.is_null(plain), absent)
            faults, words = (*faults, (NOT_IN_FORMAT, _mask(unread))), plain
        wide = _parsed(words, pl.Float64)
    odd = pc.and_(pc.invert(pc.is_finite(wide).fill_null(False)), pc.invert(absent))
    large = pc.greater(pc.abs(wide), LARGEST_NUMBER).fill_null(False)
    missing = ((MISSING, _mask(absent)),) if required else ()
    found = ((NOT_A_NUMBER, _mask(odd)), (TOO_LARGE, _mask(large)), *missing)
    return Values(wide.cast(pa.float32(), safe=False), (*faults, *found))


def time(raw: Any, unit: str) -> Values:
    """Convert times to microseconds since 1970 (UTC), without finer digits.

    Times without a zone are UTC. `unit` is an `events.timestamp_unit`. It applies to numbers and
    text; Arrow's time types have a unit of their own.
    """
    kind = raw.type
    if pa.types.is_dictionary(kind):
        return time(raw.cast(kind.value_type), unit)
    if pa.types.is_date(kind):
        raw, kind = raw.cast(pa.timestamp("ms")), pa.timestamp("ms")
    if pa.types.is_timestamp(kind):
        return _epoch(raw.cast(pa.int64()), pc.is_null(raw), kind.unit)
    if unit == "iso8601":
        return _iso_8601(raw)
    if pa.types.is_uint64(kind):
        # A plain cast would wrap large counts to negative ones.
        raw = pc.min_element_wise(raw, pa.scalar(_INT64_MAX, kind), skip_nulls=False)
    if "%" in unit:
        return _iso_8601(raw.cast(pa.int64(), safe=False) if _is_numeric(kind) else raw, unit)
    if unit == "excel":
        return _excel(raw)
    if _is_numeric(kind):
        counts = raw.cast(pa.int64() if pa.types.is_integer(kind) else pa.float64(), safe=False)
        return _epoch(counts, pc.is_null(raw), unit)
    faults, words, absent = _words(raw)
    integers = _parsed(words, pl.Int64)
    whole = _epoch(integers, absent, unit, faults)
    is_integer = _mask(pc.is_valid(integers))
    if (is_integer | _mask(absent)).all():
        return whole
    decimal = _epoch(_parsed(words, pl.Float64), absent, unit, faults)
    merged = (
        (reason, np.where(is_integer, mask, other))
        for (reason, mask), (_, other) in zip(whole.faults, decimal.faults, strict=True)
    )
    return Values(pa.array(np.where(is_integer, whole.array, decimal.array)), tuple(merged))


def optional_seconds(raw: Any, unit: str) -> Values:
    """Convert times to seconds since 1970 (UTC), as `time` does; missing ones become null."""
    if pa.types.is_floating(raw.type):
        raw = _where(pc.invert(pc.is_nan(raw)), raw)
    found = time(raw, unit)
    missing = np.zeros(len(raw), bool)
    for reason, mask in found.faults:
        if reason == MISSING:
            missing |= mask
    seconds = pa.array(found.array.to_numpy() // _US_PER_S, mask=missing)
    return Values(seconds, tuple(fault for fault in found.faults if fault[0] != MISSING))


def _joined(lists: Any, separator: str) -> tuple[Values, Any]:
    """Join each list to a string; also return the strings of all items."""
    items = text(lists.flatten())
    strings = _lists_like(lists, _lengths(lists), items.array)
    broken = np.zeros(len(lists), bool)
    for _, mask in items.faults:
        broken[_rows_of_items(lists)[mask]] = True
    return Values(pc.binary_join(strings, separator), ((NOT_UTF8, broken),)), items.array


def _without_nulls(lists: Any) -> Any:
    values = lists.flatten()
    if not values.null_count:
        return lists
    present = _mask(pc.is_valid(values))
    lengths = np.bincount(_rows_of_items(lists)[present], minlength=len(lists))
    return _lists_like(lists, lengths, values.filter(pa.array(present)))


def _lists_like(lists: Any, lengths: npt.NDArray[np.int64], values: Any) -> Any:
    """Return lists of other lengths and values that are null in the same rows as `lists`."""
    bounds = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    absent = np.append(_mask(pc.is_null(lists)), False)
    return pa.ListArray.from_arrays(pa.array(bounds, mask=absent), values)


def _lengths(lists: Any) -> npt.NDArray[np.int64]:
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    return cast("npt.NDArray[np.int64]", lengths.astype(np.int64))


def _rows_of_items(lists: Any) -> npt.NDArray[np.int64]:
    return np.repeat(np.arange(len(lists)), _lengths(lists))


def _decimal_text(raw: Any) -> Any:
    """Convert decimals to text without exponents or trailing zeros, whatever their scale."""
    coded = raw.dictionary_encode()
    # Adding 0 removes the sign of a negative zero.
    plain = (f"{value.as_py() + 0:f}" for value in coded.dictionary)
    shown = [text.rstrip("0").rstrip(".") if "." in text else text for text in plain]
    return pa.array(shown, pa.string()).take(coded.indices)


def _iso_8601(raw: Any, pattern: str | None = None) -> Values:
    faults, words, absent = _words(raw)
    if pattern is not None:
        words = patterned_as_iso_8601(words, pattern)
    is_plain = pc.match_substring_regex(words, _ISO_8601)
    if pattern is None and not pc.all(pc.or_(is_plain, absent)).as_py():
        words = pc.if_else(is_plain, words, respelt_as_iso_8601(words))
        is_plain = pc.match_substring_regex(words, _ISO_8601)
    shaped = _where(is_plain, words)
    # Arrow rejects digits beyond microseconds.
    cut = pc.replace_substring_regex(shaped, r"(\.\d{6})\d+", r"\1")
    zoned = pc.match_substring_regex(cut, _ZONE)
    with_zone = _cast_or_null(_where(zoned, cut), pa.timestamp("us", "UTC")).cast(pa.int64())
    without = _cast_or_null(_where(pc.invert(zoned), cut), pa.timestamp("us")).cast(pa.int64())
    return _epoch(pc.coalesce(with_zone, without), absent, "us", faults)


def _excel(raw: Any) -> Values:
    """Convert days since 1899-12-30 to microseconds, rounded to seconds."""
    faults, words, absent = _words(raw)
    days = _parsed(pc.replace_substring(words, ",", "."), pl.Float64)
    seconds = pc.round(pc.multiply(pc.subtract(days, _EXCEL_1970), _S_PER_DAY))
    return _epoch(seconds, absent, "s", faults)


def _epoch(counts: Any, absent: Any, unit: str, faults: Faults = ()) -> Values:
    """Convert integers or floats in `unit` to microseconds, and mark invalid values."""
    per_s = _UNITS_PER_S[unit]
    missing = _mask(absent)
    is_float = pa.types.is_floating(counts.type)
    values = counts.fill_null(np.nan if is_float else 0).to_numpy(zero_copy_only=False)
    if is_float:
        unread = ~np.isfinite(values) & ~missing
        values = np.where(np.isfinite(values), values, 0) / per_s
        low, high = _FIRST_S, _END_S
    else:
        unread = _mask(pc.is_null(counts)) & ~missing
        low, high = max(_FIRST_S * per_s, -_INT64_MAX), min(_END_S * per_s, _INT64_MAX)
    outside = ~unread & ~missing & ((values < low) | (values >= high))
    values = np.where(outside, 0, values)
    if is_float:
        micros = np.floor(values * _US_PER_S).astype(np.int64)
    else:
        micros = values * (_US_PER_S // per_s) if per_s <= _US_PER_S else values // 1000
    found = ((MISSING, missing), (NOT_A_TIME, unread), (TIME_OUT_OF_RANGE, outside))
    return Values(pa.array(micros), (*faults, *found))


def _words(raw: Any) -> tuple[Faults, Any, Any]:
    """Return the faults, the trimmed text, and a mask of the empty values."""
    found = text(raw)
    words = pc.ascii_trim_whitespace(found.array)
    broken = pa.array(found.faults[0][1]) if found.faults else pa.array(np.zeros(len(raw), bool))
    empty = pc.or_(pc.is_null(words), pc.equal(words, "").fill_null(True))
    return found.faults, words, pc.and_not(empty, broken)


def _parsed(words: Any, kind: type[pl.DataType]) -> Any:
    """Parse text as numbers; words that are not numbers become null."""
    return pl.Series(pl.from_arrow(words)).cast(kind, strict=False).to_arrow()


def _where(condition: Any, values: Any) -> Any:
    return pc.if_else(condition.fill_null(False), values, pa.scalar(None, values.type))


def _cast_or_null(array: Any, kind: Any) -> Any:
    """Cast an array; values that fail become null, and are found by halving the array."""
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        if len(array) == 1:
            return pa.nulls(1, kind)
        half = len(array) // 2
        return pa.concat_arrays(
            [_cast_or_null(array[:half], kind), _cast_or_null(array[half:], kind)]
        )


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_numeric(kind: Any) -> bool:
    types = pa.types
    tests = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    return any(test(kind) for test in tests)


def _mask(array: Any) -> Mask:
    return cast(Mask, array.to_numpy(zero_copy_only=False))
