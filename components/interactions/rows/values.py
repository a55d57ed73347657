"""Columns with their invalid values, and the conversions that every type of column needs."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.sources.block import (
    NOT_UTF8,
)

Mask = npt.NDArray[np.bool_]
Faults = tuple[tuple[str, Mask], ...]


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
    if is_list(kind):
        return joined(without_nulls(raw), " ")[0]
    if pa.types.is_decimal(kind):
        return Values(_decimal_text(raw), ())
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return Values(raw.cast(pa.string()), ())
    strings = cast_or_null(raw, pa.string())
    broken = mask_of(pc.and_not(pc.is_null(strings), pc.is_null(raw)))
    return Values(strings, ((NOT_UTF8, broken),))


def words_of(raw: Any) -> tuple[Faults, Any, Any]:
    """Return the faults, the trimmed text, and a mask of the empty values."""
    found = text(raw)
    words = pc.ascii_trim_whitespace(found.array)
    broken = pa.array(found.faults[0][1]) if found.faults else pa.array(np.zeros(len(raw), bool))
    empty = pc.or_(pc.is_null(words), pc.equal(words, "").fill_null(True))
    return found.faults, words, pc.and_not(empty, broken)


def parsed(words: Any, kind: type[pl.DataType]) -> Any:
    """Parse text as numbers; words that are not numbers become null."""
    return pl.Series(pl.from_arrow(words)).cast(kind, strict=False).to_arrow()


def where(condition: Any, values: Any) -> Any:
    """Return values where a condition holds, and null elsewhere."""
    return pc.if_else(condition.fill_null(False), values, pa.scalar(None, values.type))


def cast_or_null(array: Any, kind: Any) -> Any:
    """Cast an array; values that fail become null, and are found by halving the array."""
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        if len(array) == 1:
            return pa.nulls(1, kind)
        half = len(array) // 2
        return pa.concat_arrays(
            [cast_or_null(array[:half], kind), cast_or_null(array[half:], kind)]
        )


def joined(lists: Any, separator: str) -> tuple[Values, Any]:
    """Join each list to a string; also return the strings of all items."""
    items = text(lists.flatten())
    strings = lists_like(lists, lengths_of(lists), items.array)
    broken = np.zeros(len(lists), bool)
    for _, mask in items.faults:
        broken[rows_of_items(lists)[mask]] = True
    return Values(pc.binary_join(strings, separator), ((NOT_UTF8, broken),)), items.array


def without_nulls(lists: Any) -> Any:
    """Return lists without their null items; null lists stay."""
    values = lists.flatten()
    if not values.null_count:
        return lists
    present = mask_of(pc.is_valid(values))
    lengths = np.bincount(rows_of_items(lists)[present], minlength=len(lists))
    return lists_like(lists, lengths, values.filter(pa.array(present)))


def lists_like(lists: Any, lengths: npt.NDArray[np.int64], values: Any) -> Any:
    """Return lists of other lengths and values that are null in the same rows as `lists`."""
    bounds = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    absent = np.append(mask_of(pc.is_null(lists)), False)
    return pa.ListArray.from_arrays(pa.array(bounds, mask=absent), values)


def lengths_of(lists: Any) -> npt.NDArray[np.int64]:
    """Return the number of items of each list, `[n]`."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    return cast("npt.NDArray[np.int64]", lengths.astype(np.int64))


def rows_of_items(lists: Any) -> npt.NDArray[np.int64]:
    """Return the row of each item of the lists, `[num_items]`."""
    return np.repeat(np.arange(len(lists)), lengths_of(lists))


def is_list(kind: Any) -> bool:
    """Return True for a type of lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def is_numeric(kind: Any) -> bool:
    """Return True for a type of numbers or Booleans."""
    types = pa.types
    tests = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    return any(test(kind) for test in tests)


def mask_of(array: Any) -> Mask:
    """Return a Boolean column as a mask `[n]`."""
    return cast(Mask, array.to_numpy(zero_copy_only=False))


def _decimal_text(raw: Any) -> Any:
    """Convert decimals to text without exponents or trailing zeros, whatever their scale."""
    coded = raw.dictionary_encode()
    # Adding 0 removes the sign of a negative zero.
    plain = (f"{value.as_py() + 0:f}" for value in coded.dictionary)
    shown = [text.rstrip("0").rstrip(".") if "." in text else text for text in plain]
    return pa.array(shown, pa.string()).take(coded.indices)
