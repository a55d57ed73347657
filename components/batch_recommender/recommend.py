"""Write recommendations for many queries with Beam: each worker answers one bucket at a time.

The files are collected in a folder next to the output, which they replace when all are complete. A
run that was interrupted continues with the files that are missing.
"""

import contextlib
import ctypes
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from components import files
from components.batch_recommender.answers import Answerer, Request
from components.batch_recommender.requested import RequestedQueries
from components.beam_results import MakePipeline
from components.errors import BatchError
from components.index_builder.export import IDENTITY_FILE
from components.index_builder.loaded_model import LoadedModel
from components.interactions.buckets import read_table
from components.interactions.timelines.histories import read_queries
from models.features.spec import ALLOW_PREFIX, EXCLUDE_SEEN_KEY
from models.input.raw_examples import split_files
from models.input.raw_inputs import query_inputs

# The plan of the output, and its counts once it is complete. It marks a folder as our output.
# Readers of a folder of Parquet files skip names with an underscore.
REPORT_FILE = "_batch.json"
_PREFIX, _SUFFIX = "recommendations-", ".parquet"
# Options of glibc's `mallopt`: the number of heaps, the free memory at the end of a heap, and the
# size of tensors outside of the heaps, which the second option would otherwise reduce to 128 KB.
_MALLOC_OPTIONS = {-8: 2, -1: 16 << 20, -3: 32 << 20}


# The workers of Beam's default runner are threads of this process, which share one model.
@lru_cache(maxsize=1)
def _load(model_path: str) -> LoadedModel:
    # By default, glibc makes up to eight heaps per CPU, because there are many threads. Each keeps
    # up to 64 MB of free memory, also after `malloc_trim`.
    with contextlib.suppress(OSError, AttributeError):  # if the C library is not glibc
        for option, value in _MALLOC_OPTIONS.items():
            ctypes.CDLL(None).mallopt(option, value)
    return LoadedModel(model_path)


@dataclass(frozen=True)
class _Bucket:
    """The files of a bucket: its Examples, tables of requested queries and features, and output."""

    examples: tuple[str, ...]
    target: str
    answers_all: bool = True
    requested: str | None = None
    features: str | None = None


def recommend_to_files(
    model_path: str,
    examples: str,
    splits: Sequence[str],
    request: Request,
    output: str,
    make_pipeline: MakePipeline,
    requested: RequestedQueries | None = None,
) -> dict[str, Any]:
    """Write `recommendations-*.parquet` (see `answers`), either all files or none.

    Args:
        model_path: A retrieval SavedModel.
        examples: URI of the Examples with the timelines.
        splits: Their splits with timelines, in order.
        request: What to ask for each query.
        output: A folder that is new, empty, or an earlier output, which is replaced.
        make_pipeline: Function that creates a Beam pipeline.
        requested: The queries to answer; by default all that have events.

    Returns:
        The content of `_batch.json`.

    Raises:
        BatchError: The model cannot answer the request, or the output has other files.
        IngestError: The file of the queries cannot be read.
    """
    request = _checked(_load(model_path), request)
    output = output.rstrip("/")
    _check_output(output)
    by_split = [split_files(examples, split) for split in splits]
    number = len(by_split[0])
    plan = {
        "request": request.model_dump(mode="json"),
        "model": _digest(model_path),
        "examples": examples,
        "queries": requested and requested.fingerprint,
        "num_files": number,
    }
    folder, name = os.path.split(output)
    staging = os.path.join(folder, f".{name}.incomplete")
    report_path = os.path.join(staging, REPORT_FILE)
    begun = json.loads(files.read_text(report_path)) if files.exists(report_path) else {}
    if begun.get("plan") != plan:
        files.remove(staging)
        files.write_text(report_path, json.dumps({"plan": plan}))
    names = [f"{_PREFIX}{part:05d}-of-{number:05d}{_SUFFIX}" for part in range(number)]
    buckets = [
        _Bucket(tuple(of_splits), os.path.join(staging, name), requested is None)
        for of_splits, name in zip(zip(*by_split, strict=True), names, strict=True)
    ]
    spill = files.make_folder(os.path.join(staging, ".spill"))
    try:
        missing = [(i, b) for i, b in enumerate(buckets) if not files.exists(b.target)]
        if requested is not None and missing:
            tables = requested.read(number, spill, make_pipeline)
            missing = [
                (i, replace(b, requested=tables.queries.get(i), features=tables.features.get(i)))
                for i, b in missing
            ]
        if missing:
            with make_pipeline() as pipeline:
                _ = (
                    pipeline
                    | "Buckets" >> beam.Create(missing)
                    # Grouping by distinct keys distributes the elements over the workers.
                    | "DistributeBuckets" >> beam.GroupByKey()
                    | "Recommend" >> beam.ParDo(_Recommend(model_path, request))
                )
    finally:
        files.remove(spill)
        _load.cache_clear()
    report = {"plan": plan, **_totals(bucket.target for bucket in buckets)}
    files.write_text(report_path, json.dumps(report, indent=2))
    with files.open_folder_to_write(output) as complete:
        made = [*names, REPORT_FILE]
        paths = ([os.path.join(at, name) for name in made] for at in (staging, complete))
        files.rename(*paths)
    files.remove(staging)
    return report


def _checked(model: LoadedModel, request: Request) -> Request:
    """Return a request that a model can answer, with a smaller k if its catalogue is smaller.

    Raises:
        BatchError: The model has other inputs, lacks a filter, or returns fewer candidates.
    """
    known = model.inputs(request.signature)
    needed = {*query_inputs(request.spec), *([EXCLUDE_SEEN_KEY] if request.exclude_seen else ())}
    missing = sorted(needed - known.keys())
    if missing:
        raise BatchError(
            f"the model must have the inputs of the configuration, but has no {missing[0]!r}; run "
            "the pipeline with this configuration first"
        )
    taken = {"rank", "score", "model_version", request.spec.query_id}
    if clashing := sorted(taken & model.output_names(request.signature)):
        raise BatchError(
            f"`serving.return_fields` must not have names of other columns, got {clashing[0]!r}; "
            "give the feature another name, with the file's column in its `column`"
        )
    filters = sorted(n.removeprefix(ALLOW_PREFIX) for n in known if n.startswith(ALLOW_PREFIX))
    unknown = [name for name in request.filters if name not in filters]
    if unknown:
        raise BatchError(
            f"the model must have a filter {unknown[0]!r}, but its filters are "
            f"{', '.join(filters) or 'none'}; add it to `index.filters` and run the pipeline"
        )
    width = model.width(request.signature)
    if width is None or request.k <= width:
        return request
    if width < request.index_k:  # the whole catalogue
        return request.model_copy(update={"k": width})
    raise BatchError(
        f"k must be at most {width}, the number of candidates that the model returns for each "
        f"query, got {request.k}; for more, run the pipeline with a larger `index.k`"
    )


def _check_output(output: str) -> None:
    found = files.list_folder(output)
    if found and REPORT_FILE not in found:
        raise BatchError(
            f"the output must be a new or empty folder, or an earlier output of recommendations, "
            f"but {output} has {', '.join(found[:3])}; choose another folder"
        )


def _digest(model_path: str) -> str:
    identity = os.path.join(model_path, IDENTITY_FILE)
    return files.read_text(identity) if files.exists(identity) else model_path


def _totals(paths: Iterable[str]) -> dict[str, int]:
    """Return the sums of the counts in the files."""
    totals = {"num_queries": 0, "num_unknown": 0, "num_rows": 0}
    for path in paths:
        with files.open_to_read(path) as stream:
            found = pq.ParquetFile(stream)
            counts = found.schema_arrow.metadata
            totals["num_rows"] += found.metadata.num_rows
        for name in ("num_queries", "num_unknown"):
            totals[name] += int(counts[name.encode()])
    return totals


class _Recommend(beam.DoFn):
    """Answer the queries of a bucket, and write the answers to a file."""

    def __init__(self, model_path: str, request: Request) -> None:
        self._model_path, self._request = model_path, request.model_dump_json()

    def setup(self) -> None:
        self._asked = Request.model_validate_json(self._request)
        self._answerer = Answerer(_load(self._model_path), self._asked)

    def process(self, keyed: tuple[int, Iterable[_Bucket]]) -> Iterator[None]:
        (bucket,) = keyed[1]
        spec = self._asked.spec
        requested, features = (
            None if path is None else read_table(path)
            for path in (bucket.requested, bucket.features)
        )
        if requested is None and not bucket.answers_all:
            requested = pa.table({spec.query_id: pa.array([], pa.string())})
        queries = read_queries(bucket.examples, spec, requested, features)
        counts = {"num_queries": str(len(queries)), "num_unknown": str(queries.num_unknown)}
        self._answerer.write(queries, bucket.target, counts)
        del queries
        # Otherwise Arrow and glibc keep most of the freed memory.
        pa.default_memory_pool().release_unused()
        with contextlib.suppress(OSError, AttributeError):  # if the C library is not glibc
            ctypes.CDLL(None).malloc_trim(0)
        yield from ()
