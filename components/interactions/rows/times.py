"""Convert raw columns to times, and mark invalid values."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.rows.time_formats import (
    patterned_as_iso_8601,
    respelt_as_iso_8601,
)
from components.interactions.rows.values import (
    Faults,
    Values,
    cast_or_null,
    is_numeric,
    mask_of,
    parsed,
    where,
    words_of,
)
from components.interactions.sources.block import (
    MISSING,
    NOT_A_TIME,
    TIME_OUT_OF_RANGE,
)

_UNITS_PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST_S = -62_135_596_800  # 0001-01-01
_END_S = 253_402_300_800  # 10000-01-01
_INT64_MAX = 2**63 - 1
_US_PER_S = 10**6
_S_PER_DAY = 86_400.0
_EXCEL_1970 = 25_569.0  # Excel's number for 1970-01-01

_ISO_8601 = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}(:\d{2}(:\d{2}(\.\d+)?)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$"
_ZONE = r"[ T][\d:.]+(Z|[+-]\d{2}(:?\d{2})?)$"


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
        return _iso_8601(raw.cast(pa.int64(), safe=False) if is_numeric(kind) else raw, unit)
    if unit == "excel":
        return _excel(raw)
    if is_numeric(kind):
        counts = raw.cast(pa.int64() if pa.types.is_integer(kind) else pa.float64(), safe=False)
        return _epoch(counts, pc.is_null(raw), unit)
    faults, words, absent = words_of(raw)
    integers = parsed(words, pl.Int64)
    whole = _epoch(integers, absent, unit, faults)
    is_integer = mask_of(pc.is_valid(integers))
    if (is_integer | mask_of(absent)).all():
        return whole
    decimal = _epoch(parsed(words, pl.Float64), absent, unit, faults)
    merged = (
        (reason, np.where(is_integer, mask, other))
        for (reason, mask), (_, other) in zip(whole.faults, decimal.faults, strict=True)
    )
    return Values(pa.array(np.where(is_integer, whole.array, decimal.array)), tuple(merged))


def optional_seconds(raw: Any, unit: str) -> Values:
    """Convert times to seconds since 1970 (UTC), as `time` does; missing ones become null."""
    if pa.types.is_floating(raw.type):
        raw = where(pc.invert(pc.is_nan(raw)), raw)
    found = time(raw, unit)
    missing = np.zeros(len(raw), bool)
    for reason, mask in found.faults:
        if reason == MISSING:
            missing |= mask
    seconds = pa.array(found.array.to_numpy() // _US_PER_S, mask=missing)
    return Values(seconds, tuple(fault for fault in found.faults if fault[0] != MISSING))


def _iso_8601(raw: Any, pattern: str | None = None) -> Values:
    faults, words, absent = words_of(raw)
    if pattern is not None:
        words = patterned_as_iso_8601(words, pattern)
    is_plain = pc.match_substring_regex(words, _ISO_8601)
    if pattern is None and not pc.all(pc.or_(is_plain, absent)).as_py():
        words = pc.if_else(is_plain, words, respelt_as_iso_8601(words))
        is_plain = pc.match_substring_regex(words, _ISO_8601)
    shaped = where(is_plain, words)
    # Arrow rejects digits beyond microseconds.
    cut = pc.replace_substring_regex(shaped, r"(\.\d{6})\d+", r"\1")
    zoned = pc.match_substring_regex(cut, _ZONE)
    with_zone = cast_or_null(where(zoned, cut), pa.timestamp("us", "UTC")).cast(pa.int64())
    without = cast_or_null(where(pc.invert(zoned), cut), pa.timestamp("us")).cast(pa.int64())
    return _epoch(pc.coalesce(with_zone, without), absent, "us", faults)


def _excel(raw: Any) -> Values:
    """Convert days since 1899-12-30 to microseconds, rounded to seconds."""
    faults, words, absent = words_of(raw)
    days = parsed(pc.replace_substring(words, ",", "."), pl.Float64)
    seconds = pc.round(pc.multiply(pc.subtract(days, _EXCEL_1970), _S_PER_DAY))
    return _epoch(seconds, absent, "s", faults)


def _epoch(counts: Any, absent: Any, unit: str, faults: Faults = ()) -> Values:
    """Convert integers or floats in `unit` to microseconds, and mark invalid values."""
    per_s = _UNITS_PER_S[unit]
    missing = mask_of(absent)
    is_float = pa.types.is_floating(counts.type)
    values = counts.fill_null(np.nan if is_float else 0).to_numpy(zero_copy_only=False)
    if is_float:
        unread = ~np.isfinite(values) & ~missing
        values = np.where(np.isfinite(values), values, 0) / per_s
        low, high = _FIRST_S, _END_S
    else:
        unread = mask_of(pc.is_null(counts)) & ~missing
        low, high = max(_FIRST_S * per_s, -_INT64_MAX), min(_END_S * per_s, _INT64_MAX)
    outside = ~unread & ~missing & ((values < low) | (values >= high))
    values = np.where(outside, 0, values)
    if is_float:
        micros = np.floor(values * _US_PER_S).astype(np.int64)
    else:
        micros = values * (_US_PER_S // per_s) if per_s <= _US_PER_S else values // 1000
    found = ((MISSING, missing), (NOT_A_TIME, unread), (TIME_OUT_OF_RANGE, outside))
    return Values(pa.array(micros), (*faults, *found))
