"""Words such as NULL that often mark a missing value: their number in each column."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.config import SOURCE_SETTINGS, DataConfig, Source
from components.interactions.sources.columns import SourceColumn

# Spellings of databases, pandas, R, Excel, JavaScript and UCI datasets.
MISSING_WORDS = frozenset(
    word
    for words in (
        "NULL Null null (null) <null> \\N NIL nil NONE None none NaN Nan nan NAN -nan NaT",
        "NA N/A n/a N.A. n.a. <NA> #NA #N/A #NULL! #REF! #VALUE! UNDEFINED undefined ? - --",
    )
    for word in words.split()
)
_WORDS = pa.array(sorted(MISSING_WORDS))
_NUM_SHOWN = 5

# The number of rows by source, column and word.
WordCounts = Counter[tuple[Source, str, str]]


def count_missing_words(
    rows: pa.Table, source: Source, columns: Sequence[SourceColumn]
) -> WordCounts:
    """Count the words for missing values in the IDs, event types and categories of rows."""
    counts: WordCounts = Counter()
    # Several features may have the same column.
    read = {c.column: c for c in columns if c.kind in ("id", "event_type", "categorical")}
    for name, column in read.items():
        for word, count in _count(rows[column.key].combine_chunks(), column.separator):
            counts[source, name, word] += count
    return counts


def missing_word_warnings(counts: WordCounts, data: DataConfig) -> list[str]:
    """Return a warning for each column that has words for missing values."""
    by_column: dict[tuple[Source, str], Counter[str]] = {}
    for (source, column, word), count in sorted(counts.items()):
        by_column.setdefault((source, column), Counter())[word] += count
    return [
        f"column {column!r} of `{SOURCE_SETTINGS[source]}` has words that often mark a missing "
        f"value: {_shown(words)}. They are read like any other value. If they mean a missing "
        f"value, set {missing_values_setting([*data.missing_values, *_spellings(words, data)])}"
        for (source, column), words in by_column.items()
    ]


def _spellings(words: Iterable[str], data: DataConfig) -> list[str]:
    """Return words as they can be in the files, because those that were counted are normalised."""
    if "case" not in data.normalize_ids:
        return list(words)
    lower = {word.lower() for word in words}
    return sorted(word for word in MISSING_WORDS if word.lower() in lower)


def missing_values_setting(words: Sequence[str]) -> str:
    """Return the setting that treats words as missing; YAML would read a bare NULL as no word."""
    return f"`ingest.missing_values: {json.dumps(words)}`"


def _count(values: Any, separator: str | None) -> Iterator[tuple[str, int]]:
    if pa.types.is_dictionary(values.type):
        # The few distinct values show whether the many rows need to be read.
        if not pc.any(_is_word(values.dictionary)).as_py():
            return
        values = values.dictionary.take(values.indices)
    if separator is not None:
        values = pc.split_pattern(values, separator).flatten()
    found = pc.utf8_trim_whitespace(values.filter(_is_word(values)))
    words, counts = pc.value_counts(found).flatten()
    yield from zip(words.to_pylist(), counts.to_pylist(), strict=True)


def _is_word(values: Any) -> Any:
    return pc.is_in(pc.utf8_trim_whitespace(values), value_set=_WORDS)


def _shown(words: Counter[str]) -> str:
    shown = [f"'{word}' ({count:,} times)" for word, count in words.most_common(_NUM_SHOWN)]
    return ", ".join([*shown, *(["…"] if len(words) > _NUM_SHOWN else [])])
