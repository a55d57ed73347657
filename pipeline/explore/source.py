"""The items, queries and histories of the input files in memory, for answers without delay."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.config import Source
from components.interactions.timelines.examples import feature_lists
from models.features.spec import HISTORY_KEY, HISTORY_TYPES_KEY
from pipeline.config.project import PipelineConfig
from pipeline.source_lookup import (
    as_inputs,
    as_text,
    history_columns,
    read_source,
    timelines_of,
)
from serving.clients.model import decode_text


class FeatureRows:
    """The features of the candidates or of the queries by ID; empty without a file.

    A BigQuery query is not run, because that costs money.
    """

    def __init__(self, config: PipelineConfig, source: Source) -> None:
        spec = config.spec
        is_query = source == "queries"
        key = spec.query_id if is_query else spec.candidate_id
        self.features = spec.query_features if is_query else spec.catalogue_features
        has_file = (config.data.queries if is_query else config.data.candidates) is not None
        ids: list[str] = []
        parts: dict[str, list[Any]] = {name: [] for name in self.features}
        for rows in read_source(config, source) if has_file and _is_free(config, source) else ():
            ids += rows[key].to_pylist()
            for name, lists in feature_lists(rows, self.features, np.arange(len(rows))).items():
                parts[name].append(lists)
        self.row_of = {name: row for row, name in reversed(list(enumerate(ids)))}
        self._lists = {name: pa.chunked_array(of) for name, of in parts.items() if of}

    def values(self, row_id: str) -> dict[str, list[Any]]:
        """Return the values of each feature, which may be none."""
        row = self.row_of.get(row_id)
        if row is None:
            return {}
        found = {name: lists[row].as_py() for name, lists in self._lists.items()}
        return {name: [_decoded(value) for value in of] for name, of in found.items()}

    def inputs(self, row_id: str) -> dict[str, Any]:
        """Return the features as inputs of a model."""
        return as_inputs(self.values(row_id), self.features)

    def counts(self, feature: str) -> Counter[str]:
        """Return the number of rows with each value of a feature."""
        counts: Counter[str] = Counter()
        for chunk in self._lists[feature].chunks if feature in self._lists else ():
            counts.update(map(_decoded, chunk.flatten().to_pylist()))
        return counts


class Histories:
    """The events of all queries, oldest first, as ingestion orders them.

    Attributes:
        counts: Number of events by candidate.
        has_types: Whether events have types (`events.types`).
    """

    def __init__(self, config: PipelineConfig) -> None:
        names = history_columns(config)
        self.has_types = HISTORY_TYPES_KEY in names
        self._columns = {key: pl.Series(dtype=pl.String) for key in names}
        self._slices: dict[str, tuple[int, int]] = {}
        self.counts: dict[str, int] = {}
        is_free = _is_free(config, "interactions")
        rows = list(read_source(config, "interactions")) if is_free else []
        if not rows:
            return
        events = timelines_of(config, rows)
        texts = {
            name: pl.Series(events[name].cast(pa.string()))
            for name in events.schema.names
            if name in (config.spec.query_id, *names.values())
        }
        self._columns = {key: texts[name] for key, name in names.items()}
        runs = texts[config.spec.query_id].rle().struct.unnest()
        starts = runs["len"].cum_sum() - runs["len"]
        self._slices = dict(zip(runs["value"], zip(starts, runs["len"], strict=True), strict=True))
        self.counts = dict(self._columns[HISTORY_KEY].value_counts(sort=True).iter_rows())

    @property
    def query_ids(self) -> Sequence[str]:
        """The IDs of the queries that have events, in ascending order."""
        return sorted(self._slices)

    def of(self, query_id: str) -> list[str]:
        """Return the candidates of a query's events; empty if the query is unknown."""
        return self._values(HISTORY_KEY, query_id)

    def types_of(self, query_id: str) -> list[str]:
        """Return the types of a query's events, if they have types."""
        return self._values(HISTORY_TYPES_KEY, query_id)

    def _values(self, key: str, query_id: str) -> list[str]:
        return self._columns[key].slice(*self._slices.get(query_id, (0, 0))).to_list()


class Items:
    """The catalogue: names, fields and a search. Without a file, it has the candidates of events.

    The name of an item is its first text feature, or else its ID.
    """

    def __init__(self, config: PipelineConfig, histories: Histories) -> None:
        self.rows = FeatureRows(config, "candidates")
        texts = [name for name, of in self.rows.features.items() if of.kind == "text"]
        self._texts = texts
        self.shown = lru_cache(maxsize=50_000)(self._shown)
        counts = histories.counts
        # The sort is stable, so items without events keep the order of the file.
        self._ids = sorted(self.rows.row_of or counts, key=lambda name: -counts.get(name, 0))
        names = (f"{item} {self._shown(item)[0]}" for item in self._ids)
        self._plain = pa.array(map(_plain, names), pa.string())
        self.filters: Mapping[str, list[tuple[str, int]]] = {
            name: sorted(self.rows.counts(name).most_common(_MAX_VALUES))
            for name in config.index.filters
        }

    def __len__(self) -> int:
        return len(self._ids)

    def name(self, item: str) -> str:
        """Return the name of an item."""
        return self.shown(item)[0]

    def _shown(self, item: str) -> tuple[str, dict[str, str]]:
        """Return the name of an item, and its other fields that are not missing, as text."""
        values = self.rows.values(item)
        name = next((values[text][0] for text in self._texts if values.get(text)), item)
        fields = {field: as_text(of, self.rows.features[field]) for field, of in values.items()}
        return name, {field: text for field, text in fields.items() if text not in ("", name)}

    def search(self, text: str, limit: int) -> list[str]:
        """Return the items whose ID or name has all words of a text, the most popular first."""
        found = np.ones(len(self._ids), bool)
        for word in _plain(text).split():
            found &= pc.match_substring(self._plain, word).to_numpy(zero_copy_only=False)
        return [self._ids[row] for row in np.flatnonzero(found)[:limit]]

    def passes(self, item: str, filters: Mapping[str, Sequence[str]]) -> bool:
        """Return whether an item has an allowed value for each feature in `filters`."""
        values = self.rows.values(item)
        return all(set(allowed) & set(values.get(name, ())) for name, allowed in filters.items())


_MAX_VALUES = 100


def _is_free(config: PipelineConfig, source: Source) -> bool:
    return source not in config.data.queried


def _decoded(value: Any) -> Any:
    return decode_text(value) if isinstance(value, bytes) else value


def _plain(text: str) -> str:
    """Return text in lower case and without accents, so that `amelie` finds `Amélie`."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in parts if not unicodedata.combining(letter))
