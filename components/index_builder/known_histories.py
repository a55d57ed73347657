"""The newest events of each known query, which the served model keeps for requests with only an ID.

A stored history replaces an empty one of a request before the towers and the ranking stage read it,
so both kinds of requests share all later steps.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from components.errors import IndexRefusedError
from components.index_builder.catalogue_files import LineIndex, write_lines
from components.interactions.timelines.histories import read_queries
from models.features.spec import HISTORY_KEY, HISTORY_TYPES_KEY, FeatureSpec

_EVENT_BYTES = 4
# The start of the history, and an entry of the lookup table: measured with a million IDs of eight
# characters. Longer IDs, which are in base64, are stored outside of the entry.
_QUERY_BYTES = 8 + 76


@dataclass(frozen=True)
class HistorySource:
    """The Examples with the histories to keep.

    Attributes:
        buckets: The files of each bucket in the order of the splits, training first.
        newest: Number of events to keep of each query.
        max_mb: Largest size in megabytes.
    """

    buckets: Sequence[Sequence[str]]
    newest: int
    max_mb: int

    def read(self, spec: FeatureSpec, ids: pa.Array, directory: str) -> "StoredHistories":
        """Return the histories, with the IDs of their queries in a file in `directory`.

        `ids` are those of the catalogue, in index order.

        Raises:
            IndexRefusedError: The histories are larger than `max_mb`.
        """
        # Removed candidates are not in the index, but the query tower may know them.
        others: dict[bytes, int] = {}
        lengths: list[npt.NDArray[np.int64]] = []
        candidates: list[npt.NDArray[np.int32]] = []
        types: list[npt.NDArray[np.int8]] = []
        names = [*spec.columns.event_types, ""]
        num_bytes = 0
        path = os.path.join(directory, "query_ids.base64")
        with open(path, "wb") as file:
            for bucket in self.buckets:
                queries = read_queries(bucket, spec)
                histories = queries.histories(slice(0, len(queries)))
                events, *of_types = (
                    histories[name][:, -self.newest :]
                    for name in (HISTORY_KEY, HISTORY_TYPES_KEY)
                    if name in histories
                )
                lengths.append(events.row_lengths().numpy())
                names_of_queries = queries.features[spec.query_id].flat_values.numpy()
                num_bytes += len(queries) * _QUERY_BYTES + sum(map(len, names_of_queries)) * 4 // 3
                num_bytes += int(lengths[-1].sum()) * (_EVENT_BYTES + len(of_types))
                if num_bytes > self.max_mb * 1e6:
                    continue  # only measure the rest
                write_lines(file, names_of_queries)
                encoded = pa.array(events.values.numpy(), pa.binary()).dictionary_encode()
                known = pc.index_in(encoded.dictionary, value_set=ids).to_pylist()
                codes = [
                    others.setdefault(name, len(ids) + len(others)) if code is None else code
                    for code, name in zip(known, encoded.dictionary.to_pylist(), strict=True)
                ]
                candidates.append(np.array(codes, np.int32)[np.asarray(encoded.indices)])
                for rows in of_types:
                    texts = pa.array(rows.values.numpy(), pa.binary()).cast(pa.string())
                    found = pc.index_in(texts, value_set=pa.array(names))
                    types.append(found.fill_null(len(names) - 1).to_numpy().astype(np.int8))
        sizes = np.concatenate(lengths)
        if num_bytes > self.max_mb * 1e6:
            raise IndexRefusedError(
                f"`serving.known_histories: {self.newest}` must take at most "
                f"{self.max_mb:,} MB (`serving.known_histories_max_mb`), but "
                f"{int(sizes.sum()):,} events of {len(sizes):,} queries take "
                f"{num_bytes / 1e6:,.0f} MB; keep fewer events, or raise the limit if the server "
                "has the memory"
            )
        return StoredHistories(
            self.newest,
            num_bytes,
            path,
            # Unknown queries have the last row, which is empty.
            np.concatenate(([0], np.cumsum(sizes), [sizes.sum()])),
            np.concatenate(candidates),
            len(ids),
            [*others, b""],
            np.concatenate(types) if types else None,
            names,
        )


@dataclass(frozen=True)
class StoredHistories:
    """Histories of known queries in compressed sparse row (CSR) format.

    Attributes:
        newest: The largest number of events of a query.
        num_bytes: Estimated memory in the server.
        queries_file: File with one query ID per line, in base64.
        row_splits: Start of each query's events, then the end twice `[num_queries + 2]`.
        candidates: Index of the candidate of each event; from `num_candidates` on, in `others`.
        others: IDs of candidates that the index does not have.
        types: Index of the type of each event in `type_names`; None if the model reads no types.
    """

    newest: int
    num_bytes: int
    queries_file: str
    row_splits: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int32]
    num_candidates: int
    others: Sequence[bytes]
    types: npt.NDArray[np.int8] | None
    type_names: Sequence[str]

    def report(self) -> dict[str, Any]:
        """Return the counts for the report of the index."""
        return {
            "newest": self.newest,
            "num_queries": len(self.row_splits) - 2,
            "num_events": len(self.candidates),
            "megabytes": round(self.num_bytes / 1e6, 1),
        }


class KnownHistories(tf.Module):
    """Fills in the history of requests that have none, if their query is known.

    Args:
        stored: The histories.
        ids: The candidate IDs in index order `[num_candidates]`.
        query_id: Name of the input with the query ID.
    """

    def __init__(self, stored: StoredHistories, ids: tf.Variable, query_id: str) -> None:
        super().__init__()
        self._query_id, self._ids = query_id, ids
        self._num_queries = len(stored.row_splits) - 2
        self._num_candidates = stored.num_candidates
        self._number_of = LineIndex(stored.queries_file, missing=self._num_queries)
        self._row_splits = tf.Variable(stored.row_splits, False)
        self._candidates = tf.Variable(stored.candidates, False)
        self._others = tf.Variable(np.array(stored.others, object), False, dtype=tf.string)
        self._types = None if stored.types is None else tf.Variable(stored.types, False)
        self._type_names = list(stored.type_names)

    def fill(self, rows: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the inputs of a batch, with the stored histories in rows without a history."""
        history = rows[HISTORY_KEY]
        is_given = tf.reduce_any(history != "", axis=1)
        number = self._number_of.lookup(rows[self._query_id])
        number = tf.where(is_given, self._num_queries, number)
        events = tf.ragged.range(
            tf.gather(self._row_splits, number), tf.gather(self._row_splits, number + 1)
        )
        candidates = tf.gather(self._candidates, events.flat_values)
        other = candidates - self._num_candidates
        names = tf.where(
            other < 0,
            tf.gather(self._ids, tf.minimum(candidates, self._num_candidates - 1)),
            tf.gather(self._others, tf.maximum(other, 0)),
        )
        stored = {HISTORY_KEY: events.with_flat_values(names).to_tensor("")}
        if self._types is not None:
            of_events = tf.cast(tf.gather(self._types, events.flat_values), tf.int32)
            types = tf.gather(tf.constant(self._type_names), of_events)
            stored[HISTORY_TYPES_KEY] = events.with_flat_values(types).to_tensor("")
        chosen = {name: _either(is_given, rows[name], values) for name, values in stored.items()}
        return {**rows, **chosen}


def _either(is_first: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Choose the rows of one of two tensors `[batch, n]` and `[batch, m]`, padded with ""."""
    width = tf.maximum(tf.shape(first)[1], tf.shape(second)[1])
    padded = [tf.pad(of, [[0, 0], [0, width - tf.shape(of)[1]]]) for of in (first, second)]
    return tf.where(is_first[:, None], *padded)
