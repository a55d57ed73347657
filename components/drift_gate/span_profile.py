"""What a span of the input files holds, small enough to keep for years."""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_data_validation as tfdv
from tfx import types
from tfx.components.util import tfxio_utils
from tfx.dsl.io import fileio
from tfx.utils import io_utils
from tfx_bsl.tfxio.dataset_options import RecordBatchesOptions

from components.drift_gate.feature_statistics import Statistics
from components.in_process.statistics_executor import statistics_of
from components.interactions.buckets import Sizing
from components.interactions.config import SOURCES, IngestConfig, Source
from components.interactions.rows.checks import check_rows
from components.interactions.sources.columns import source_columns
from components.interactions.sources.files import SourceFile, read_blocks
from components.interactions.stable_hash import Hashes, hash_strings
from components.interactions.timelines.examples import feature_lists, single_lists
from models.features.spec import EVENT_TYPE_KEY, RATING_KEY

_CANDIDATES_FILE = "candidates.npz"
_BATCH_SIZE = 4096
# Distances of numbers are told between these: `quantile_divergence`.
_NUM_QUANTILES = 100
# Fewer distinct ids than this are not worth merging yet.
_LEAST_MERGED = 1 << 20

Counts = npt.NDArray[np.int64]


@dataclass
class Profile:
    """What one span held.

    Attributes:
        span: Its number.
        shown_span: As people write it.
        num_events: Good rows of interactions.
        known: Hashes of the candidates known with it, catalogue and training events, sorted.
        seen: Hashes of the candidates of its events.
        seen_counts: How many events each of them has.
        statistics: TFDV's, by source: of the events of the span, of the queries that have some, and
            of the catalogue.
        version: Which delivery; None where they are not told apart.
        files: Hash of its files.
    """

    span: int
    shown_span: str
    num_events: int
    known: Hashes
    seen: Hashes
    seen_counts: Counts
    statistics: dict[Source, Statistics] = field(default_factory=dict)
    version: int | None = None
    files: str = ""

    def write(self, folder: str) -> None:
        """Writes one file a source, and last one for the rest: see `has_profile`."""
        for source, found in self.statistics.items():
            io_utils.write_bytes_file(
                os.path.join(folder, f"{source}.pb"), found.SerializeToString()
            )
        content = io.BytesIO()
        np.savez_compressed(
            content,
            span=self.span,
            shown_span=self.shown_span,
            num_events=self.num_events,
            known=self.known,
            seen=self.seen,
            seen_counts=self.seen_counts,
            version=-1 if self.version is None else self.version,
            files=self.files,
            sources=np.array(sorted(self.statistics)),
        )
        io_utils.write_bytes_file(os.path.join(folder, _CANDIDATES_FILE), content.getvalue())

    @classmethod
    def read(cls, folder: str) -> "Profile":
        """Reads what `write` left."""
        content = io_utils.read_bytes_file(os.path.join(folder, _CANDIDATES_FILE))
        with np.load(io.BytesIO(content), allow_pickle=False) as saved:
            sources = set(saved["sources"].tolist())
            statistics = {
                source: Statistics.FromString(
                    io_utils.read_bytes_file(os.path.join(folder, f"{source}.pb"))
                )
                for source in SOURCES
                if source in sources
            }
            return cls(
                span=int(saved["span"]),
                shown_span=str(saved["shown_span"]),
                num_events=int(saved["num_events"]),
                known=saved["known"],
                seen=saved["seen"],
                seen_counts=saved["seen_counts"],
                statistics=statistics,
                version=int(saved["version"]) if saved["version"] >= 0 else None,
                files=str(saved["files"]),
            )


def has_profile(folder: str) -> bool:
    """Whether a profile was written there to its end."""
    return bool(fileio.exists(os.path.join(folder, _CANDIDATES_FILE)))


def known_candidates(examples: types.Artifact, candidate_id: str) -> Hashes:
    """Returns the sorted hashes of the candidates in the split `candidates`."""
    source = tfxio_utils.get_split_tfxio(
        examples=[examples], split="candidates", telemetry_descriptors=["DriftGate"]
    )
    options = RecordBatchesOptions(
        batch_size=_BATCH_SIZE, num_epochs=1, shuffle=False, drop_final_batch=False
    )
    found = [
        hash_strings(batch.column(batch.schema.get_field_index(candidate_id)).flatten())
        for batch in source.RecordBatches(options)
    ]
    known: Hashes = np.unique(np.concatenate([np.array([], np.uint64), *found]))
    return known


def take_profile(
    config: IngestConfig,
    files: Sequence[SourceFile],
    span: int,
    known: Hashes,
    *,
    catalogue: bool = True,
) -> Profile:
    """Reads one span of the interactions, its queries, and the catalogue.

    Memory holds a hash of each distinct id of one span, beside a block of a file.

    Args:
        config: With chosen spans that include interactions.
        files: Of the run.
        span: Which.
        known: See `Profile.known`.
        catalogue: Whether the catalogue is read.
    """
    chosen = config.chosen_spans
    if chosen is None:
        raise ValueError("a profile needs chosen spans of interactions")
    files = [
        file
        for file in files
        if file.header and (file.source != "interactions" or file.span == span)
    ]
    spec = config.spec
    with_queries = bool(spec.query_features) and config.data.queries is not None
    events = _Events(config, with_queries=with_queries)
    profile = Profile(
        span, chosen.show(span), 0, known, np.array([], np.uint64), np.array([], np.int64)
    )
    profile.statistics["interactions"] = _statistics(events.batches(files))
    profile.num_events = events.num_rows
    profile.seen, profile.seen_counts = events.candidates.merged()
    if with_queries:
        asking, _ = events.queries.merged()
        tables = (
            rows.filter(pa.array(np.isin(_hashes(rows[spec.query_id]), asking)))
            for rows in _rows(config, files, "queries")
        )
        profile.statistics["queries"] = _statistics(
            _batch(feature_lists(rows, spec.query_features, np.arange(len(rows))))
            for rows in tables
            if len(rows)
        )
    if catalogue and spec.candidate_features and config.data.candidates is not None:
        profile.statistics["candidates"] = _statistics(
            _batch(feature_lists(rows, spec.candidate_features, np.arange(len(rows))))
            for rows in _rows(config, files, "candidates")
            if len(rows)
        )
    return profile


class _Events:
    """The events of the span, counted while they are read."""

    def __init__(self, config: IngestConfig, *, with_queries: bool) -> None:
        self._config = config
        self._with_queries = with_queries
        self.num_rows = 0
        self.queries = _DistinctIds()
        self.candidates = _DistinctIds()

    def batches(self, files: Sequence[SourceFile]) -> Iterator[pa.RecordBatch]:
        spec = self._config.spec
        for rows in _rows(self._config, files, "interactions"):
            if not len(rows):
                continue
            self.num_rows += len(rows)
            if self._with_queries:
                self.queries.add(rows[spec.query_id])
            self.candidates.add(rows[spec.candidate_id])
            ids = rows[spec.candidate_id].cast(pa.binary()).combine_chunks()
            lists = {spec.candidate_id: single_lists(ids)}
            for key in (RATING_KEY, EVENT_TYPE_KEY):
                if key in rows.schema.names:
                    values = rows[key].combine_chunks()
                    is_text = pa.types.is_string(values.type)
                    lists[key] = single_lists(values.cast(pa.binary()) if is_text else values)
            yield _batch(lists)


class _DistinctIds:
    """Hashes of ids and how often each came; memory grows with the distinct ones alone."""

    def __init__(self) -> None:
        self._parts: list[tuple[Hashes, Counts]] = []
        self._num_merged = 0

    def add(self, ids: pa.ChunkedArray) -> None:
        counted = pc.value_counts(ids.cast(pa.string()).combine_chunks())
        hashes = hash_strings(counted.field("values"))
        self._parts.append((hashes, counted.field("counts").to_numpy()))
        waiting = sum(len(part) for part, _ in self._parts) - self._num_merged
        # As many again as there are: each id is merged a few times only.
        if waiting > max(self._num_merged, _LEAST_MERGED):
            self.merged()

    def merged(self) -> tuple[Hashes, Counts]:
        """Returns the distinct hashes in order, and the count of each."""
        hashes = np.concatenate([np.array([], np.uint64), *(found for found, _ in self._parts)])
        counts = np.concatenate([np.array([], np.int64), *(found for _, found in self._parts)])
        distinct, places = np.unique(hashes, return_inverse=True)
        summed = np.zeros(len(distinct), np.int64)
        np.add.at(summed, places, counts)
        self._parts, self._num_merged = [(distinct, summed)], len(distinct)
        return distinct, summed


def _hashes(ids: pa.ChunkedArray) -> Hashes:
    return hash_strings(ids.cast(pa.string()).combine_chunks())


def _rows(config: IngestConfig, files: Sequence[SourceFile], source: Source) -> Iterator[pa.Table]:
    columns = source_columns(config, source)
    names = list(dict.fromkeys(column.column for column in columns))
    for file in files:
        if file.source == source:
            for block in read_blocks(file, names, config.data.delimiter, Sizing().block_bytes):
                yield check_rows(block, file.index, columns, config.data.timestamp_unit)[0]


def _batch(lists: dict[str, pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(lists.values()), list(lists))


def _statistics(batches: Iterator[pa.RecordBatch]) -> Statistics:
    found: Statistics = statistics_of(
        batches,
        tfdv.StatsOptions(
            use_sketch_based_topk_uniques=True, num_quantiles_histogram_buckets=_NUM_QUANTILES
        ),
    )
    return found
