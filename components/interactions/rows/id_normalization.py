"""Normalisation of IDs that the sources write differently, and detection of the one they need."""

from collections.abc import Collection, Iterable
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.config import IdNormalization

_BLANK = r"[\s\p{Z}\p{Cf}]+"
_REPLACE = pc.replace_substring_regex
# In the order in which they are applied: `0042.0 ` becomes `42`.
_FUNCTIONS: dict[IdNormalization, Any] = {
    "nfc": partial(pc.utf8_normalize, form="NFC"),
    "strip": partial(_REPLACE, pattern=f"^{_BLANK}|{_BLANK}$", replacement=""),
    "case": pc.utf8_lower,
    "float_suffix": partial(_REPLACE, pattern=r"^([+-]?\d+)\.0*$", replacement=r"\1"),
    "leading_zeros": partial(_REPLACE, pattern=r"^0+(\d+)$", replacement=r"\1"),
}
_CAUSES: dict[IdNormalization, str] = {
    "nfc": "different Unicode forms",
    "strip": "spaces around IDs",
    "case": "upper and lower case",
    "float_suffix": "integers written as floats",
    "leading_zeros": "leading zeros",
}


class Remedy(NamedTuple):
    """The normalisations that make IDs meet, the share that then meets, and a pair of such IDs."""

    normalizations: tuple[IdNormalization, ...]
    share: float
    pair: tuple[str, str]


def normalize(ids: Any, names: Collection[IdNormalization]) -> Any:
    """Apply the named normalisations to an array of strings [n], in a fixed order."""
    if not names:
        return ids
    coded = ids.dictionary_encode()
    distinct = coded.dictionary
    for name in in_order(names):
        distinct = _FUNCTIONS[name](distinct)
    return distinct.take(coded.indices)


def in_order(names: Collection[IdNormalization]) -> tuple[IdNormalization, ...]:
    """Return the names in the order in which they are applied."""
    return tuple(name for name in _FUNCTIONS if name in names)


def causes(names: Collection[IdNormalization]) -> str:
    """Return the differences between IDs that the normalisations remove."""
    return " and ".join(_CAUSES[name] for name in in_order(names))


def find_remedy(ids: Any, others: Iterable[Any]) -> Remedy | None:
    """Return the fewest normalisations that make as many of `ids` as possible equal to `others`.

    `ids` and the blocks of `others` are arrays of strings [n] that have no ID in common. The result
    is None if no normalisation makes any of them equal.
    """
    forms = normalize(ids, _FUNCTIONS)
    blocks = (
        block.filter(pc.is_in(normalize(block, _FUNCTIONS), value_set=forms)) for block in others
    )
    near = pa.concat_arrays([pa.array([], pa.string()), *blocks])

    def meeting(names: Collection[IdNormalization]) -> Any:
        return pc.index_in(normalize(ids, names), value_set=normalize(near, names))

    def num_meeting(names: Collection[IdNormalization]) -> int:
        return len(ids) - int(meeting(names).null_count)

    needed = in_order(_FUNCTIONS)
    for name in needed:
        fewer = tuple(other for other in needed if other != name)
        if num_meeting(fewer) >= num_meeting(needed):
            needed = fewer
    if not needed:
        return None
    found = meeting(needed)
    first = pc.index(pc.is_valid(found), True).as_py()
    pair = (ids[first].as_py(), near[found[first].as_py()].as_py())
    return Remedy(needed, num_meeting(needed) / len(ids), pair)
