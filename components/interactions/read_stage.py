"""First Beam pipeline: read and check all files, and write their rows to ordered buckets."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import TaggedOutput

from components.interactions.buckets import (
    BucketPaths,
    IngestPlan,
    Segment,
    read_segment,
    write_table,
)
from components.interactions.config import NEWEST_SPAN, SOURCES, Source
from components.interactions.errors import UnreadableFileError
from components.interactions.partition import Key, to_buckets, write_groups
from components.interactions.rows import bad_rows
from components.interactions.rows.bad_rows import StoredBadRows
from components.interactions.rows.checks import deduplicate_rows, rated_high_enough, read_rows
from components.interactions.rows.missing_words import WordCounts, count_missing_words
from components.interactions.rows.outliers import Sketches, sketch_numbers
from components.interactions.sources.columns import FILE, LINE, TIME_US, source_columns
from components.interactions.sources.files import SourceFile
from components.interactions.splits.cut_time import write_sorted_times
from components.interactions.timelines.timelines import collapse_funnels, order_events

_FACTS = "facts"
_DAY_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True)
class FileFacts:
    """Results of reading one file; `failure` is the error that ended reading, or None."""

    source: Source
    index: int
    num_rows: int
    num_good: int
    failure: str | None = None


@dataclass(frozen=True)
class BucketFacts:
    """Results of ordering one bucket, whose `num_rows` rows are in `path`.

    Rows that repeat another, events below the minimum rating, and events of a funnel except one
    (`collapse_funnels`) were dropped. If a cut depends on
    the times of the events, `times` is a file with them or, with `eval_from: newest_span`, a file
    for the newest span and a file for earlier ones. Of the remaining rows, `missing_words` has
    counts, `numbers` a sketch of each numeric feature, `time_range` the first and last time, and
    `days` the number of events by day, counted from 1970.
    """

    source: Source
    bucket: int
    path: str
    num_rows: int
    num_repeated: int
    num_below_min_rating: int = 0
    num_collapsed: int = 0
    times: tuple[str, ...] = ()
    missing_words: WordCounts = field(default_factory=Counter)
    numbers: Sketches = field(default_factory=dict)
    time_range: tuple[int, int] | None = None
    days: Mapping[int, int] = field(default_factory=dict)


class ReadFacts:
    """Results of the first pipeline, from `FileFacts`, `BucketFacts` and `StoredBadRows`."""

    def __init__(self, found: Iterable[Any]):
        """Group the results of the workers by type."""
        found = list(found)
        self.files = [item for item in found if isinstance(item, FileFacts)]
        self.buckets = [item for item in found if isinstance(item, BucketFacts)]
        self.rejects = sorted(
            (item for item in found if isinstance(item, StoredBadRows)),
            key=lambda bad: (SOURCES.index(bad.source), bad.index, bad.first_line),
        )

    def of_source(self, source: Source) -> list[BucketFacts]:
        """Return the buckets of a source."""
        return [bucket for bucket in self.buckets if bucket.source == source]

    def bucket_paths(self) -> BucketPaths:
        """Return the paths of the ordered buckets by source and bucket number."""
        return {source: {b.bucket: b.path for b in self.of_source(source)} for source in SOURCES}

    def spans_with_events(self, plan: IngestPlan) -> set[int]:
        """Return the numbers of the spans that have valid events."""
        good = {(found.source, found.index) for found in self.files if found.num_good}
        events = (file for file in plan.files if file.source == "interactions")
        return {f.span for f in events if f.span is not None and (f.source, f.index) in good}


def read_and_order(pipeline: beam.Pipeline, plan: IngestPlan) -> beam.PCollection:
    """Read all files, order their rows, and return the results that `ReadFacts` groups."""
    read = (
        pipeline
        | "Files" >> beam.Create([((f.source, f.index), f) for f in plan.files if f.header])
        # Grouping by distinct keys spreads files over the workers, at half the cost of Reshuffle.
        | "SpreadFiles" >> beam.GroupByKey()
        | "Read" >> beam.FlatMap(_read_file, plan).with_outputs(_FACTS, main="segments")
    )
    id_keys = {source: plan.id_key(source) for source in SOURCES}
    ordered = (
        to_buckets(read.segments, plan, id_keys)
        | "ByBucket" >> beam.GroupByKey()
        | "Order" >> beam.FlatMap(_order_bucket, plan)
    )
    return (read[_FACTS], ordered) | "AllFacts" >> beam.Flatten()


def _read_file(keyed: tuple[Any, Iterable[SourceFile]], plan: IngestPlan) -> Iterator[Any]:
    """Write the rows of a file to buckets on disk; the main output is groups and segments."""
    (file,) = keyed[1]
    num_rows = num_good = 0
    failure = None
    try:
        for good, bad in read_rows(plan.config, file, plan.sizing.block_bytes):
            num_rows += len(good) + len(bad)
            num_good += len(good)
            yield from write_groups(plan, file.source, good, plan.id_key(file.source))
            for stored in bad_rows.store(plan, file.source, bad):
                yield TaggedOutput(_FACTS, stored)
    except UnreadableFileError as error:
        failure = str(error)
    yield TaggedOutput(_FACTS, FileFacts(file.source, file.index, num_rows, num_good, failure))


def _order_bucket(keyed: tuple[Key, Iterable[Segment]], plan: IngestPlan) -> Iterator[Any]:
    """Concatenate the rows of a bucket, put them in order, and remove duplicates."""
    (source, bucket), segments = keyed
    rows = pa.concat_tables([read_segment(segment) for segment in sorted(segments)])
    if source in plan.config.unordered_sources:
        content = [name for name in rows.schema.names if name not in (FILE, LINE)]
        rows = rows.sort_by([(name, "ascending") for name in content])
    if source == "interactions":
        yield _order_events(bucket, rows, plan)
        return
    columns = source_columns(plan.config, source)
    id_column = columns[0]
    table, num_repeated, conflicts = deduplicate_rows(rows, id_column.key, id_column.column)
    path = write_table(table, plan.spill_dir)
    yield BucketFacts(
        source,
        bucket,
        path,
        len(table),
        num_repeated,
        missing_words=count_missing_words(table, source, columns),
        numbers=sketch_numbers(table, source, columns),
    )
    yield from bad_rows.store(plan, source, conflicts)


def _order_events(bucket: int, rows: pa.Table, plan: IngestPlan) -> BucketFacts:
    spec, split, data = plan.config.spec, plan.config.split, plan.config.data
    good = rated_high_enough(rows, data.min_rating)
    drops = data.duplicate_events == "drop"
    table, num_dropped = order_events(good, spec.query_id, spec.candidate_id, drop_duplicates=drops)
    num_collapsed = 0
    if data.collapse_within_s is not None:
        keys = spec.query_id, spec.candidate_id
        table, num_collapsed = collapse_funnels(
            table, *keys, data.type_order, data.collapse_within_s
        )
    times = []
    if split.eval_from == NEWEST_SPAN:
        newest = max(file.span for file in plan.files if file.span is not None)
        mine = (file for file in plan.files if file.source == "interactions")
        files = [file.index for file in mine if file.span == newest]
        in_newest = pc.is_in(good[FILE], value_set=pa.array(files, pa.int32())).to_numpy()
        moments = good[TIME_US].to_numpy()
        times = [moments[in_newest], moments[~in_newest]]
    elif split.method == "temporal" and split.eval_from is None:
        times = [table[TIME_US].to_numpy()]
    known = table[TIME_US].to_numpy() if spec.columns.timestamp else np.zeros(0, np.int64)
    days, per_day = np.unique(known // _DAY_US, return_counts=True)
    return BucketFacts(
        "interactions",
        bucket,
        write_table(table, plan.spill_dir),
        len(table),
        num_dropped,
        len(rows) - len(good),
        num_collapsed,
        tuple(write_sorted_times(moments, plan.spill_dir) for moments in times),
        count_missing_words(table, "interactions", source_columns(plan.config, "interactions")),
        time_range=(int(known.min()), int(known.max())) if len(known) else None,
        days=dict(zip(days.tolist(), per_day.tolist(), strict=True)),
    )
