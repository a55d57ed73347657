"""Statistics of the input files, which are read with the readers of ingestion."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.config import SOURCES, IngestConfig, Source
from components.interactions.joins import Join, join_warnings, make_join
from components.interactions.rows.checks import deduplicate_rows, read_rows
from components.interactions.rows.missing_words import (
    WordCounts,
    count_missing_words,
    missing_word_warnings,
)
from components.interactions.rows.outliers import Sketches, number_warnings, sketch_numbers
from components.interactions.rows.time_formats import time_warnings
from components.interactions.sources.columns import TIME_US, source_columns
from components.interactions.sources.files import SourceFile, find_files, no_rows
from components.interactions.timelines.examples import example_types, feature_lists
from models.features.spec import (
    EVENT_TYPE_KEY,
    IS_TARGET_KEY,
    RATING_KEY,
    TIMESTAMP_KEY,
    FeatureSpec,
)
from pipeline.schema_inference import DEFAULT_MAX_ROWS

ValueType = Literal["BYTES", "INT", "FLOAT"]
Side = Literal["query", "event", "candidate_id", "candidate"]

# A column with more values is an ID or free text, so counting them only wastes memory.
MAX_COUNTED_VALUES = 100_000
# Number of unmatched IDs whose normalised forms are looked up.
_NUM_SAMPLED = 1000
_US_PER_S = 10**6
_VALUE_TYPES: dict[pa.DataType, ValueType] = {
    pa.binary(): "BYTES",
    pa.int64(): "INT",
    pa.float32(): "FLOAT",
}


@dataclass
class FeatureTally:
    """Statistics of one feature of Examples, which are updated with each block of rows.

    Attributes:
        side: Determines which Examples have the feature: those of the catalogue for `candidate`,
            all for `candidate_id`, and those of timelines otherwise.
        is_list: Whether an Example may have several values.
        values: Occurrences by value; None if they are not counted, or if there are more than
            `MAX_COUNTED_VALUES`.
        num_rows: Number of rows read: queries, events or candidates.
        has_nan: Whether events that lack a number have NaN instead.
    """

    name: str
    side: Side
    value_type: ValueType
    is_list: bool = True
    values: Counter[str] | None = None
    num_rows: int = 0
    num_missing: int = 0
    minimum: float | None = None
    maximum: float | None = None
    has_nan: bool = False

    @property
    def num_present(self) -> int:
        """The number of rows with a value."""
        return self.num_rows - self.num_missing

    def add_lists(self, lists: Any) -> None:
        """Add rows that are lists of values, as in Examples; shape [rows]."""
        self.num_missing += pc.sum(pc.equal(pc.list_value_length(lists), 0)).as_py() or 0
        self.add_values(lists.flatten(), len(lists))

    def add_values(self, values: Any, num_rows: int | None = None) -> None:
        """Add the values of rows; `num_rows` is None if each row has exactly one value."""
        self.num_rows += len(values) if num_rows is None else num_rows
        if self.value_type != "BYTES":
            found = pc.min_max(values).as_py()
            bounds = [found["min"], found["max"], self.minimum, self.maximum]
            known = [bound for bound in bounds if bound is not None]
            self.minimum, self.maximum = min(known, default=None), max(known, default=None)
            self.has_nan |= values.null_count > 0
        elif self.values is not None:
            counted = pc.value_counts(values.cast(pa.string()))
            values, counts = (field.to_pylist() for field in counted.flatten())
            self.values.update(dict(zip(values, counts, strict=True)))
            if len(self.values) > MAX_COUNTED_VALUES:
                self.values = None


@dataclass
class ReadSource:
    """Number of files of an input, number of rows that were read, and whether these are all."""

    num_files: int
    num_rows: int = 0
    is_complete: bool = True


@dataclass
class Observation:
    """Statistics of all inputs.

    Attributes:
        features: Statistics by key in Examples, in the order of the configuration.
        bad_rows: Number of bad rows by source, column (empty for the whole row) and reason.
        bad_values: The first value of each kind of bad row.
        joins: The joins of the events with the files of queries and candidates that were read
            completely.
        warnings: Problems of the data that do not make it unreadable.
    """

    features: dict[str, FeatureTally]
    sources: dict[Source, ReadSource] = field(default_factory=dict)
    bad_rows: Counter[tuple[Source, str, str]] = field(default_factory=Counter)
    bad_values: dict[tuple[Source, str, str], str] = field(default_factory=dict)
    joins: dict[Source, Join] = field(default_factory=dict)
    missing_words: WordCounts = field(default_factory=Counter)
    numbers: list[Sketches] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """True if all rows of all files were read."""
        return all(source.is_complete for source in self.sources.values())


def observe(config: IngestConfig, max_rows: int = DEFAULT_MAX_ROWS) -> Observation:
    """Read about `max_rows` rows of each input, equally many of its files, and return statistics.

    Raises:
        IngestError: A file or a column is missing or unreadable.
    """
    spec = config.spec
    observed = Observation(features=_tallies(spec))
    files = find_files(config)
    event_ids: dict[Source, pa.Table] = {}
    for source in SOURCES:
        mine = [file for file in files if file.source == source]
        if not mine:
            continue
        observed.sources[source] = ReadSource(len(mine))
        rows = _rows(config, mine, observed, max_rows)
        if source == "interactions":
            event_ids = _observe_events(spec, rows, observed)
        else:
            _observe_described(config, source, rows, event_ids[source], observed)
    texts = join_warnings(list(observed.joins.values()), config.data)
    texts += missing_word_warnings(observed.missing_words, config.data)
    texts += number_warnings(observed.numbers, spec)
    times = observed.features.get(TIMESTAMP_KEY)
    if times is not None and times.minimum is not None and times.maximum is not None:
        texts += time_warnings(*(int(s) * _US_PER_S for s in (times.minimum, times.maximum)))
    sampled = "" if observed.is_complete else "in the rows that were read, "
    observed.warnings = [sampled + text for text in texts]
    return observed


def _tallies(spec: FeatureSpec) -> dict[str, FeatureTally]:
    tallies = {}
    features = {**spec.query_features, **spec.catalogue_features}
    for key, kind in example_types(spec).items():
        side: Side = "event"
        if key == spec.query_id or key in spec.query_features:
            side = "query"
        elif key == spec.candidate_id or key in spec.catalogue_features:
            side = "candidate_id" if key == spec.candidate_id else "candidate"
        feature = features.get(key)
        # In Examples, a text is a single string; Transform splits it into words.
        is_list = feature.is_list if feature else side != "query"
        is_counted = feature.kind == "categorical" if feature else key == EVENT_TYPE_KEY
        values: Counter[str] | None = Counter() if is_counted else None
        tallies[key] = FeatureTally(key, side, _VALUE_TYPES[kind], is_list, values)
    tallies[IS_TARGET_KEY].minimum, tallies[IS_TARGET_KEY].maximum = 0, 1
    return tallies


def _rows(
    config: IngestConfig, files: list[SourceFile], observed: Observation, max_rows: int
) -> Iterator[pa.Table]:
    """Yield the valid rows of an input in blocks, and count the bad rows in `observed`."""
    source = files[0].source
    columns, read = source_columns(config, source), observed.sources[source]
    described = []
    for file in files:
        left = -(-max_rows // len(files))
        for good, bad in read_rows(config, file) if file.header else ():
            _count_bad_rows(source, bad, observed)
            taken = good.slice(0, left)
            if source != "interactions":
                described.append(taken)
            read.num_rows += len(taken) + len(bad)
            observed.missing_words += count_missing_words(taken, source, columns)
            observed.numbers.append(sketch_numbers(taken, source, columns))
            yield taken
            if len(taken) < len(good):
                read.is_complete = False
                break
            left = max(0, left - len(good) - len(bad))
    if not read.num_rows:
        raise no_rows(source, files)
    if described:
        ids = columns[0]
        conflicts = deduplicate_rows(pa.concat_tables(described), ids.key, ids.column)[2]
        _count_bad_rows(source, conflicts, observed)


def _count_bad_rows(source: Source, bad: pa.Table, observed: Observation) -> None:
    for row in bad.to_pylist():
        kind = (source, row["column"], row["reason"])
        observed.bad_rows[kind] += 1
        observed.bad_values.setdefault(kind, row["value"])


def _observe_events(
    spec: FeatureSpec, rows: Iterator[pa.Table], observed: Observation
) -> dict[Source, pa.Table]:
    """Add the events to `observed`; return the number of `events` by `id` of each other source."""
    features = observed.features
    keys: dict[Source, str] = {"queries": spec.query_id, "candidates": spec.candidate_id}
    counted: dict[Source, list[pa.Table]] = {source: [] for source in keys}
    for table in rows:
        for source, key in keys.items():
            ids, counts = pc.value_counts(table[key]).flatten()
            counted[source].append(pa.table({"id": ids.cast(pa.string()), "events": counts}))
        features[spec.candidate_id].num_rows += len(table)
        features[IS_TARGET_KEY].num_rows += len(table)
        for key in features.keys() & {RATING_KEY, EVENT_TYPE_KEY, *spec.columns.labels}:
            features[key].add_values(table[key])
        if spec.columns.timestamp is not None:
            seconds = pa.array(table[TIME_US].to_numpy() // _US_PER_S)
            features[TIMESTAMP_KEY].add_values(seconds)
    summed = {
        source: pa.concat_tables(parts).group_by("id").aggregate([("events", "sum")])
        for source, parts in counted.items()
    }
    features[spec.query_id].num_rows = len(summed["queries"])
    return {source: table.rename_columns(["events", "id"]) for source, table in summed.items()}


def _observe_described(
    config: IngestConfig,
    source: Source,
    rows: Iterator[pa.Table],
    events: pa.Table,
    observed: Observation,
) -> None:
    spec = config.spec
    of_queries = source == "queries"
    key = spec.query_id if of_queries else spec.candidate_id
    declared = spec.query_features if of_queries else spec.catalogue_features
    events_complete = observed.sources["interactions"].is_complete
    described: Any = pa.array([], pa.string())
    for table in rows:
        described = _union(described, table[key])
        if of_queries and events_complete:
            # Queries without events are not in Examples.
            table = table.filter(pc.is_in(table[key], value_set=events["id"]))
        rows_in_order = np.arange(len(table))
        for name, lists in feature_lists(table, declared, rows_in_order).items():
            observed.features[name].add_lists(lists)
    if not observed.sources[source].is_complete:
        return
    without = events.filter(pc.invert(pc.is_in(events["id"], value_set=described)))
    num_without = len(without)
    for name in declared:
        observed.features[name].num_rows += num_without
        observed.features[name].num_missing += num_without
    counts = {
        "num_events": pc.sum(events["events"]).as_py() or 0,
        "unmatched_events": pc.sum(without["events"]).as_py() or 0,
        "num_ids": len(events),
        "unmatched_ids": num_without,
    }
    sampled = without["id"][:_NUM_SAMPLED].to_pylist()
    join = make_join(config.data, source, counts, len(described), sampled, [described])
    observed.joins[source] = join


def _union(known: Any, column: Any) -> Any:
    fresh = column.unique().cast(pa.string())
    return pc.unique(pa.concat_arrays([known, fresh]))
