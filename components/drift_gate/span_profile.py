"""Profiles that summarise the content of a span and are small enough to keep for years."""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow_data_validation as tfdv
from tfx import types

from components import files
from components.drift_gate.comparison import Statistics
from components.interactions.config import SOURCES, IngestConfig, Source
from components.interactions.rows.checks import read_rows
from components.interactions.sources.files import SourceFile
from components.interactions.stable_hash import Counts, DistinctIds, Hashes, hash_strings
from components.interactions.timelines.examples import feature_lists, record_batch, single_lists
from components.stock.statistics_gen import record_batches, statistics_of
from models.features.spec import EVENT_TYPE_KEY, RATING_KEY

_CANDIDATES_FILE = "candidates.npz"
# More buckets make `quantile_divergence` more precise.
_NUM_QUANTILES = 100


@dataclass
class Profile:
    """A summary of one span.

    Attributes:
        shown_span: The span as a number or an ISO date, for messages.
        known: Sorted hashes of the known candidates: those in the catalogue or in training events.
        seen: Sorted hashes of the distinct candidates in the span's events.
        seen_counts: Number of events of each candidate in `seen`.
        statistics: TFDV statistics by source: the span's events, the features of their queries, and
            the catalogue.
    """

    shown_span: str
    known: Hashes
    seen: Hashes
    seen_counts: Counts
    statistics: dict[Source, Statistics] = field(default_factory=dict)

    @property
    def num_events(self) -> int:
        """Number of valid events."""
        return int(self.seen_counts.sum())

    def write(self, folder: str) -> None:
        """Write one file per source, and then the file that `has_profile` looks for."""
        for source, found in self.statistics.items():
            files.write_bytes(os.path.join(folder, f"{source}.pb"), found.SerializeToString())
        rest = {key: value for key, value in self.__dict__.items() if key != "statistics"}
        content = io.BytesIO()
        np.savez_compressed(content, sources=np.array(sorted(self.statistics)), **rest)
        files.write_bytes(os.path.join(folder, _CANDIDATES_FILE), content.getvalue())

    @classmethod
    def read(cls, folder: str) -> "Profile":
        """Read a profile from a folder that `write` wrote."""
        content = files.read_bytes(os.path.join(folder, _CANDIDATES_FILE))
        with np.load(io.BytesIO(content), allow_pickle=False) as saved:
            statistics = {
                source: Statistics.FromString(
                    files.read_bytes(os.path.join(folder, f"{source}.pb"))
                )
                for source in SOURCES
                if source in saved["sources"]
            }
            known, seen, counts = saved["known"], saved["seen"], saved["seen_counts"]
            return cls(str(saved["shown_span"]), known, seen, counts, statistics)


def has_profile(folder: str) -> bool:
    """Return whether a folder has a complete profile."""
    return files.exists(os.path.join(folder, _CANDIDATES_FILE))


def known_candidates(examples: types.Artifact, candidate_id: str) -> Hashes:
    """Return the sorted hashes of the candidates in the split `candidates`."""
    found = [
        hash_strings(batch.column(batch.schema.get_field_index(candidate_id)).flatten())
        for batch in record_batches(examples, "candidates")
    ]
    known: Hashes = np.unique(np.concatenate([np.array([], np.uint64), *found]))
    return known


def take_profile(
    config: IngestConfig,
    sources: Sequence[SourceFile],
    span: int,
    known: Hashes,
    *,
    catalogue: bool = True,
) -> Profile:
    """Return the profile of one span, computed from the input files.

    One block of a file and a hash of each distinct ID of the span are in memory at a time. The
    configuration must have chosen spans of interactions; `sources` are the files of the run.
    """
    chosen, spec = config.chosen_spans, config.spec
    if chosen is None:
        raise ValueError("a profile needs chosen spans of interactions")
    mine = [f for f in sources if f.header and (f.source != "interactions" or f.span == span)]
    candidates = DistinctIds()
    queries = DistinctIds() if spec.query_features and config.data.queries is not None else None
    statistics: dict[Source, Statistics] = {
        "interactions": _statistics(_event_batches(config, mine, queries, candidates))
    }
    seen, seen_counts = candidates.merged()
    if queries is not None:
        ids, _ = queries.merged()
        statistics["queries"] = _feature_statistics(
            spec.query_features,
            (
                rows.filter(pa.array(np.isin(hash_strings(_ids(rows, spec.query_id)), ids)))
                for rows in _rows(config, mine, "queries")
            ),
        )
    if catalogue and spec.candidate_features and config.data.candidates is not None:
        tables = _rows(config, mine, "candidates")
        statistics["candidates"] = _feature_statistics(spec.candidate_features, tables)
    return Profile(chosen.show(span), known, seen, seen_counts, statistics)


def _event_batches(
    config: IngestConfig,
    sources: Sequence[SourceFile],
    queries: DistinctIds | None,
    candidates: DistinctIds,
) -> Iterator[pa.RecordBatch]:
    """Yield the events as record batches, and add their IDs to `queries` and `candidates`."""
    spec = config.spec
    for rows in _rows(config, sources, "interactions"):
        if queries is not None:
            queries.add(_ids(rows, spec.query_id))
        ids = _ids(rows, spec.candidate_id)
        candidates.add(ids)
        lists = {spec.candidate_id: single_lists(ids.cast(pa.binary()))}
        for key in (RATING_KEY, EVENT_TYPE_KEY):
            if key in rows.schema.names:
                values = rows[key].combine_chunks()
                is_text = pa.types.is_string(values.type)
                lists[key] = single_lists(values.cast(pa.binary()) if is_text else values)
        yield record_batch(lists)


def _ids(rows: pa.Table, key: str) -> pa.Array:
    return rows[key].cast(pa.string()).combine_chunks()


def _rows(
    config: IngestConfig, sources: Sequence[SourceFile], source: Source
) -> Iterator[pa.Table]:
    """Yield the valid rows of a source, one block at a time."""
    for file in sources:
        if file.source == source:
            yield from (rows for rows, _ in read_rows(config, file) if len(rows))


def _feature_statistics(features: Any, tables: Iterator[pa.Table]) -> Statistics:
    return _statistics(
        record_batch(feature_lists(rows, features, np.arange(len(rows))))
        for rows in tables
        if len(rows)
    )


def _statistics(batches: Iterator[pa.RecordBatch]) -> Statistics:
    options = tfdv.StatsOptions(
        use_sketch_based_topk_uniques=True, num_quantiles_histogram_buckets=_NUM_QUANTILES
    )
    found: Statistics = statistics_of(batches, options)
    return found
