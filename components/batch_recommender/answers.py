"""Answer the queries of one bucket with a SavedModel, and write them as a Parquet file.

Each row is a recommended candidate, with these columns:

- the query ID and the candidate ID, under the names of their input columns;
- `rank`, which counts from 1, and `score`;
- each other output of the model for candidates, such as the fields in `serving.return_fields`;
  null if it is missing;
- `model_version`: the pushed version; null for a model that was not pushed.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from components import files
from components.index_builder.loaded_model import LoadedModel
from components.index_builder.served_signatures import (
    CANDIDATE_IDS_KEY,
    RECOMMEND_EXCLUDING,
    SCORES_KEY,
    SERVING_DEFAULT,
    allow_key,
)
from components.interactions.timelines.histories import Queries
from models.features.spec import EXCLUDE_SEEN_KEY, FeatureSpec
from models.settings import Settings

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_NUM_THREADS = os.cpu_count() or 1
# A batch has at most this many queries, and IDs in padded histories.
_QUERIES_PER_BATCH = 512
_VALUES_PER_BATCH = 1 << 16
_ROWS_PER_GROUP = 1 << 17
_BATCHES_AHEAD = 2 * _NUM_THREADS


class Request(Settings):
    """Options of the requests to the model, the same for each query.

    Attributes:
        index_k: The setting `index.k`, which `k` must not exceed.
        model_version: The version to write to the files; None for a model that was not pushed.
    """

    spec: FeatureSpec
    k: int
    index_k: int
    exclude_seen: bool = True
    filters: Mapping[str, tuple[str, ...]] = {}
    model_version: int | None = None

    @property
    def signature(self) -> str:
        """The signature that answers, which is the one that a client calls."""
        is_restricted = self.exclude_seen or self.filters
        return RECOMMEND_EXCLUDING if is_restricted else SERVING_DEFAULT


class Answerer:
    """A loaded model that answers batches of queries.

    Example:
        answerer = Answerer(model, Request(spec=spec, k=20, index_k=100))
        answerer.write(queries, "part.parquet", {"queries": "7"})
    """

    def __init__(self, model: LoadedModel, request: Request) -> None:
        self._model, self._request = model, request
        # The same threads for every file: glibc keeps memory for each thread that it has seen.
        self._threads = ThreadPoolExecutor(_NUM_THREADS)
        self._options = {
            allow_key(name): np.array([values], object) for name, values in request.filters.items()
        }
        # Also of a history that the model has stored.
        self._options[EXCLUDE_SEEN_KEY] = np.array([request.exclude_seen])

    def table(self, inputs: Mapping[str, tf.Tensor]) -> pa.Table:
        """Return the answers to a batch of queries, given as inputs of a signature."""
        request, spec = self._request, self._request.spec
        outputs = self._model.outputs(request.signature, {**inputs, **self._options})
        found = {name: values[:, : request.k].numpy() for name, values in outputs.items()}
        # If too few candidates are left, the model pads the end of a row with "".
        present = found[CANDIDATE_IDS_KEY] != b""
        rows, ranks = np.nonzero(present)
        columns = {
            spec.query_id: _text(inputs[spec.query_id].numpy()).take(pa.array(rows)),
            "rank": pa.array(ranks + 1, pa.int32()),
            spec.candidate_id: _text(found.pop(CANDIDATE_IDS_KEY)[present]),
            "score": pa.array(found.pop(SCORES_KEY)[present]),
        }
        for name, values in sorted(found.items()):
            of_rows = values[present]
            if of_rows.dtype == object:
                columns[name] = _text(of_rows, mask=of_rows == b"")
            else:
                columns[name] = pa.array(of_rows, mask=np.isnan(of_rows))
        version = pa.scalar(request.model_version, pa.int64())
        columns["model_version"] = pa.repeat(version, len(rows))
        return pa.table(columns)

    def write(self, queries: Queries, path: str, about: Mapping[str, str]) -> None:
        """Write the answers to a file as a whole, with `about` in the metadata of its schema."""

        def answer(rows: slice) -> pa.Table:
            return self.table(queries.inputs(self._request.spec, rows))

        # An answer to no queries has the columns of the file.
        schema = answer(slice(0, 0)).schema.with_metadata(about)
        with (
            files.open_to_write(path) as stream,
            pq.ParquetWriter(stream, schema, compression="zstd", compression_level=1) as writer,
        ):
            group: list[pa.Table] = []
            slices = queries.slices(_QUERIES_PER_BATCH, _VALUES_PER_BATCH)
            for table in _map_ahead(self._threads, answer, slices, _BATCHES_AHEAD):
                group.append(table.replace_schema_metadata(about))
                if sum(map(len, group)) >= _ROWS_PER_GROUP:
                    writer.write_table(pa.concat_tables(group))
                    group = []
            if group:
                writer.write_table(pa.concat_tables(group))


def _text(values: Any, mask: Any = None) -> Any:
    return pa.array(values, pa.binary(), mask=mask).cast(pa.string())


def _map_ahead(
    pool: ThreadPoolExecutor,
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    ahead: int,
) -> Iterator[_Result]:
    """Yield the results in order, of which at most `ahead` wait in memory."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
