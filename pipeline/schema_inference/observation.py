"""Statistics of the input files, which are read with the readers of ingestion."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.config import SOURCES, IngestConfig, Source
from components.interactions.rows.checks import read_rows
from components.interactions.sources.columns import TIME_US
from components.interactions.sources.files import SourceFile, find_files
from components.interactions.timelines.examples import feature_lists
from models.features.spec import (
    EVENT_TYPE_KEY,
    IS_TARGET_KEY,
    RATING_KEY,
    TIMESTAMP_KEY,
    FeatureConfig,
    FeatureSpec,
)
from pipeline.schema_inference.feature_tally import FeatureTally

# Limit per input; reading this many rows takes about ten seconds.
DEFAULT_MAX_ROWS = 5_000_000
_US_PER_S = 10**6


@dataclass
class ReadSource:
    """The part of an input that was read.

    Attributes:
        num_files: Number of files of the input.
        num_rows: Number of rows that were read, including bad ones.
        is_complete: Whether all rows of all files were read.
    """

    num_files: int
    num_rows: int = 0
    is_complete: bool = True


@dataclass(frozen=True)
class BadValue:
    """A kind of error that makes rows unusable.

    Attributes:
        source: Name of the input.
        column: Name of the column in the file; empty if the error concerns the whole row.
        reason: Description of the error.
        example: The first value with this error.
    """

    source: Source
    column: str
    reason: str
    example: str = field(compare=False)


@dataclass
class Observation:
    """Statistics of all inputs.

    Attributes:
        features: Statistics by key in Examples, in the order of the configuration.
        sources: Number of files and rows that were read, by input.
        bad_values: Number of bad rows, by kind of error.
        queries_without_row: Number of queries with events but without a row of features, or None
            if it is unknown.
        candidates_without_row: Number of candidates with events but without a row in the catalogue,
            or None if it is unknown.
    """

    features: dict[str, FeatureTally]
    sources: dict[Source, ReadSource] = field(default_factory=dict)
    bad_values: Counter[BadValue] = field(default_factory=Counter)
    queries_without_row: int | None = None
    candidates_without_row: int | None = None

    @property
    def is_complete(self) -> bool:
        """True if all rows of all files were read."""
        return all(source.is_complete for source in self.sources.values())


def observe(config: IngestConfig, max_rows: int = DEFAULT_MAX_ROWS) -> Observation:
    """Read the input files and return their statistics.

    Args:
        config: Ingestion settings, with absolute paths.
        max_rows: Approximate maximum number of rows to read from each input, divided equally among
            its files.

    Raises:
        IngestError: A file or a column is missing or unreadable.
    """
    spec = config.spec
    observed = Observation(features=_tallies(spec))
    files = find_files(config)
    event_ids: dict[Source, Any] = {}
    for source in SOURCES:
        mine = [file for file in files if file.source == source]
        if not mine:
            continue
        observed.sources[source] = ReadSource(len(mine))
        rows = _rows(config, mine, observed, max_rows)
        if source == "interactions":
            event_ids = _observe_events(spec, rows, observed)
        else:
            _observe_described(spec, source, rows, event_ids, observed)
    return observed


def _tallies(spec: FeatureSpec) -> dict[str, FeatureTally]:
    found = [FeatureTally(spec.query_id, "query", "BYTES", is_list=False)]
    found += [_of_feature(name, f, "query") for name, f in spec.query_features.items()]
    found.append(FeatureTally(spec.candidate_id, "candidate_id", "BYTES", is_list=True))
    if spec.columns.timestamp is not None:
        found.append(FeatureTally(TIMESTAMP_KEY, "event", "INT", is_list=True))
    if spec.columns.rating is not None:
        found.append(FeatureTally(RATING_KEY, "event", "FLOAT", is_list=True))
    if spec.columns.event_type is not None:
        found.append(
            FeatureTally(EVENT_TYPE_KEY, "event", "BYTES", is_list=True, counts_values=True)
        )
    found.append(FeatureTally(IS_TARGET_KEY, "event", "INT", is_list=True))
    found += [_of_feature(name, f, "candidate") for name, f in spec.candidate_features.items()]
    return {tally.name: tally for tally in found}


def _of_feature(name: str, feature: FeatureConfig, side: Any) -> FeatureTally:
    return FeatureTally(
        name,
        side,
        "FLOAT" if feature.kind == "numeric" else "BYTES",
        # In Examples, a text is a single string; Transform splits it into words.
        is_list=feature.separator is not None,
        counts_values=feature.kind == "categorical",
    )


def _rows(
    config: IngestConfig, files: list[SourceFile], observed: Observation, max_rows: int
) -> Iterator[pa.Table]:
    """Yield the valid rows of an input in blocks, and count the bad rows in `observed`."""
    read = observed.sources[files[0].source]
    share = -(-max_rows // len(files))
    for file in files:
        if not file.header:
            continue
        num_rows = 0
        for good, bad in read_rows(config, file):
            if num_rows >= share and len(good) + len(bad):
                read.is_complete = False
                break
            for row in bad.to_pylist():
                wrong = BadValue(file.source, row["column"], row["reason"], row["value"])
                observed.bad_values[wrong] += 1
            left = share - num_rows
            if len(good) > left:
                read.is_complete = False
                yield good.slice(0, left)
                num_rows += left
                break
            num_rows += len(good) + len(bad)
            yield good
        read.num_rows += num_rows


def _observe_events(
    spec: FeatureSpec, rows: Iterator[pa.Table], observed: Observation
) -> dict[Source, Any]:
    """Add the events to `observed`, and return their distinct query and candidate IDs."""
    features = observed.features
    queries: Any = pa.array([], pa.string())
    candidates: Any = pa.array([], pa.string())
    for table in rows:
        queries = _union(queries, table[spec.query_id])
        candidates = _union(candidates, table[spec.candidate_id])
        features[spec.candidate_id].num_rows += len(table)
        features[IS_TARGET_KEY].num_rows += len(table)
        if spec.columns.rating is not None:
            features[RATING_KEY].add_values(table[RATING_KEY])
        if spec.columns.event_type is not None:
            features[EVENT_TYPE_KEY].add_values(table[EVENT_TYPE_KEY])
        if spec.columns.timestamp is not None:
            seconds = pa.array(table[TIME_US].to_numpy() // _US_PER_S)
            features[TIMESTAMP_KEY].add_values(seconds)
    features[spec.query_id].num_rows = len(queries)
    features[IS_TARGET_KEY].minimum, features[IS_TARGET_KEY].maximum = 0, 1
    return {"queries": queries, "candidates": candidates}


def _observe_described(
    spec: FeatureSpec,
    source: Source,
    rows: Iterator[pa.Table],
    event_ids: Mapping[Source, Any],
    observed: Observation,
) -> None:
    of_queries = source == "queries"
    key = spec.query_id if of_queries else spec.candidate_id
    declared = spec.query_features if of_queries else spec.candidate_features
    events_complete = observed.sources["interactions"].is_complete
    described: Any = pa.array([], pa.string())
    for table in rows:
        described = _union(described, table[key])
        if of_queries and events_complete:
            # Queries without events are not in Examples.
            table = table.filter(pc.is_in(table[key], value_set=event_ids[source]))
        rows_in_order = np.arange(len(table))
        for name, lists in feature_lists(table, declared, rows_in_order).items():
            observed.features[name].add_lists(lists)
    if not observed.sources[source].is_complete:
        return
    num_without = len(event_ids[source]) - int(
        pc.sum(pc.is_in(event_ids[source], value_set=described)).as_py() or 0
    )
    for name in declared:
        observed.features[name].num_rows += num_without
        observed.features[name].num_missing += num_without
    if of_queries:
        observed.queries_without_row = num_without
    else:
        observed.candidates_without_row = num_without


def _union(known: Any, column: Any) -> Any:
    fresh = column.unique().cast(pa.string())
    return pc.unique(pa.concat_arrays([known, fresh]))
