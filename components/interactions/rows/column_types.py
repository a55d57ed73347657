"""Convert raw columns to text and numbers, and mark invalid values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.config import IdNormalization
from components.interactions.rows.id_normalization import normalize
from components.interactions.rows.text_formats import parsed_lists, plain_numbers
from components.interactions.rows.values import (
    Faults,
    Values,
    is_list,
    is_numeric,
    joined,
    lengths_of,
    lists_like,
    mask_of,
    parsed,
    rows_of_items,
    text,
    where,
    without_nulls,
    words_of,
)
from components.interactions.sources.block import (
    CONTROL_CHARACTER,
    HOLDS_SEPARATOR,
    MISSING,
    NOT_A_LIST,
    NOT_A_NUMBER,
    NOT_A_VECTOR,
    NOT_IN_FORMAT,
    SEVERAL,
    TOO_LARGE,
)
from models.features.spec import LARGEST_NUMBER, ListFormat

_CONTROL_CHARACTER = "[\\x00-\\x1f\\x7f]"


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
    if not is_list(raw.type) and list_format is not None:
        faults, words, absent = words_of(raw)
        lists = parsed_lists(where(pc.invert(absent), words), list_format)
        unread = mask_of(pc.and_not(pc.is_null(lists), absent))
        found = categorical(without_words(lists, missing_values), separator)
        return Values(found.array, (*faults, (NOT_A_LIST, unread), *found.faults))
    if not is_list(raw.type):
        return text(raw)
    lists = without_nulls(raw)
    if separator is None:
        first = single(lists)
        found = text(first.array)
        return Values(found.array, (*first.faults, *found.faults))
    strings, items = joined(lists, separator)
    parted = mask_of(pc.match_substring(items, separator).fill_null(False))
    rows = rows_of_items(lists)[parted]
    ambiguous = np.zeros(len(lists), bool)
    ambiguous[rows] = lengths_of(lists)[rows] > 1 if unwraps_lists else True
    return Values(strings.array, (*strings.faults, (HOLDS_SEPARATOR, ambiguous)))


def vector(raw: Any, dimension: int) -> Values:
    """Convert lists of `dimension` numbers to the bytes of float32 numbers.

    Null and empty lists become null. Bytes can be compared and joined as the other columns can.
    """
    if pa.types.is_fixed_size_list(raw.type):
        raw = raw.cast(pa.list_(raw.type.value_type))
    if not is_list(raw.type):
        empty = pc.equal(pc.binary_length(raw.cast(pa.string())), 0)
        return Values(
            pa.nulls(len(raw), pa.binary()), ((NOT_A_VECTOR, ~mask_of(empty.fill_null(True))),)
        )
    lengths = lengths_of(raw)
    items = raw.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(lengths == dimension)
    of_rows = items[np.isin(rows_of_items(raw), rows)].reshape(-1, dimension)
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
    lengths = lengths_of(raw)
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
    if is_list(raw.type):
        return lists_like(raw, lengths_of(raw), without_words(raw.flatten(), words))
    if pa.types.is_floating(raw.type) and "nan" in {word.lower() for word in words}:
        return where(pc.invert(pc.is_nan(raw)), raw)
    if raw.type not in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        return raw
    strings = text(raw).array
    if separator is not None:
        parts = without_words(pc.split_pattern(strings, separator), words)
        kept = pc.binary_join(without_nulls(parts), separator).cast(raw.type)
        return pc.if_else(pc.is_valid(strings), kept, raw)
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
    empty = mask_of(pc.equal(pc.binary_length(ids), 0).fill_null(True))
    control = mask_of(pc.match_substring_regex(ids, _CONTROL_CHARACTER).fill_null(False))
    return Values(ids, (*found.faults, (MISSING, empty), (CONTROL_CHARACTER, control)))


def number(raw: Any, number_format: str | None = None, *, required: bool = False) -> Values:
    """Convert to float32. Empty values become null; if `required`, they are also invalid.

    The square of each number must be a finite float32. `number_format` is the format of numbers
    that are text, as in `FeatureConfig`.
    """
    faults: Faults = ()
    if is_numeric(raw.type):
        absent, wide = pc.is_null(raw), raw.cast(pa.float64(), safe=False)
    else:
        faults, words, absent = words_of(raw)
        if number_format is not None:
            plain = plain_numbers(words, number_format)
            unread = pc.and_not(pc.is_null(plain), absent)
            faults, words = (*faults, (NOT_IN_FORMAT, mask_of(unread))), plain
        wide = parsed(words, pl.Float64)
    odd = pc.and_(pc.invert(pc.is_finite(wide).fill_null(False)), pc.invert(absent))
    large = pc.greater(pc.abs(wide), LARGEST_NUMBER).fill_null(False)
    missing = ((MISSING, mask_of(absent)),) if required else ()
    found = ((NOT_A_NUMBER, mask_of(odd)), (TOO_LARGE, mask_of(large)), *missing)
    return Values(wide.cast(pa.float32(), safe=False), (*faults, *found))
