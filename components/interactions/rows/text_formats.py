"""Reading of numbers and lists that a file writes as text in a declared format."""

import ast
import json
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models.features.spec import ListFormat, number_format_parts

_SPACES = "[\u00a0\u202f\u2009]"
_ITEM = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,:'"\[\](){}]+"""
# NumPy writes spaces instead of commas, which Python would read as one concatenated string.
_PYTHON_LIST = re.compile(
    rf"[\[({{]\s*(?:(?:{_ITEM})(?:\s*,\s*|\s+|(?=[\])}}])))*[\])}}]", re.DOTALL
)
_PYTHON_ITEM = re.compile(_ITEM, re.DOTALL)


def plain_numbers(words: Any, number_format: str) -> Any:
    """Rewrite numbers of a format with a decimal point only; other words become null.

    A percent sign is dropped like a currency, so 12% is 12.
    """
    parts = number_format_parts(number_format)
    # Spaces between the number and the unit are optional.
    before, thousands, decimal, after = (re.escape(part.strip() or part) for part in parts)
    whole = rf"[1-9]\d{{0,2}}(?:{thousands}\d{{3}})+|\d+" if thousands else r"\d+"
    shape = rf"^([+-]?){before}\s*([+-]?)({whole})(?:{decimal}(\d*))?([eE][+-]?\d+)?\s*{after}$"
    spaced = pc.replace_substring_regex(words, _SPACES, " ")
    fits = pc.match_substring_regex(spaced, shape)
    fitting = pc.if_else(fits, spaced, pa.scalar(None, spaced.type))
    # A semicolon replaces the decimal separator until the thousands separators are removed.
    bare = pc.replace_substring_regex(fitting, shape, r"\1\2\3;\40\5")
    if thousands:
        bare = pc.replace_substring_regex(bare, thousands, "")
    return pc.replace_substring(bare, ";", ".")


def parsed_lists(words: Any, list_format: ListFormat) -> Any:
    """Parse lists to lists of strings; words that are not lists of plain values become null."""
    coded = words.dictionary_encode()
    lists = [_list(word, list_format) for word in coded.dictionary.to_pylist()]
    return pa.array(lists, pa.list_(pa.string())).take(coded.indices)


def _list(word: str, list_format: ListFormat) -> list[str] | None:
    try:
        if list_format == "json":
            found = json.loads(word)
        elif _PYTHON_LIST.fullmatch(word):
            found = [ast.literal_eval(item) for item in _PYTHON_ITEM.findall(word[1:-1])]
        else:
            return None
        if not isinstance(found, list):
            return None
        items = [_item(item) for item in found if item is not None]
        # Escaped surrogates are not valid text.
        "".join(items).encode()
    except (ValueError, SyntaxError, RecursionError):
        return None
    return items


def _item(value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise ValueError("nested")
    return value if isinstance(value, str) else json.dumps(value)
