"""Second Beam pipeline: split the ordered buckets, and write timelines and candidates."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import TaggedOutput

from components import files
from components.interactions.buckets import (
    BucketPaths,
    IngestPlan,
    Segment,
    new_path,
    read_segment,
    read_table,
    write_table,
)
from components.interactions.config import Source
from components.interactions.partition import Key, to_buckets, write_groups
from components.interactions.splits.assignment import TRAIN, Cut, assign_splits
from components.interactions.stable_hash import Counts, hash_strings
from components.interactions.timelines.examples import (
    TimelineEncoder,
    candidate_batches,
    write_examples,
)
from components.interactions.timelines.timelines import (
    Timelines,
    held_out_timelines,
    train_timelines,
)

# The column with the IDs of candidates that the catalogue lacks.
ADDED_ID = "candidate_id"
_FILES = "files"
# Number of unmatched IDs that a pipeline returns, and that each bucket returns at least.
_MOST_SAMPLED = 1000
_LEAST_SAMPLED = 5
_ID = "id"
_NO_IDS = pa.schema({_ID: pa.string(), "events": pa.int64(), "train": pa.int64()}).empty_table()


@dataclass(frozen=True)
class SplitFile:
    """A complete file of Examples at its temporary path, with counts for the report.

    Attributes:
        added: Path of a table of the candidate IDs that the catalogue lacks, or None.
        unmatched_ids: Some IDs of events that have no row in the queries (`train`) or in the
            catalogue (`candidates`); see `joins.py`.
    """

    split: str
    bucket: int
    path: str
    counts: Mapping[str, int]
    added: str | None = None
    unmatched_ids: tuple[str, ...] = ()


def split_and_write(
    pipeline: beam.Pipeline, plan: IngestPlan, buckets: BucketPaths, cut: Cut | None
) -> beam.PCollection:
    """Write one file for each split and bucket; return `SplitFile`s."""
    timelines = (
        pipeline
        | "QueryBuckets"
        >> beam.Create([(bucket, None) for bucket in range(plan.num_buckets["interactions"])])
        | "SpreadQueryBuckets" >> beam.GroupByKey()
        | "WriteTimelines"
        >> beam.FlatMap(_write_timelines, plan, buckets, cut).with_outputs(_FILES, main="seen")
    )
    candidates = write_candidates(pipeline, plan, buckets, timelines.seen)
    return (timelines[_FILES], candidates) | "AllFiles" >> beam.Flatten()


def write_candidates(
    pipeline: beam.Pipeline, plan: IngestPlan, buckets: BucketPaths, seen: beam.PCollection
) -> beam.PCollection:
    """Write one file of candidates for each bucket; return `SplitFile`s.

    `seen` has segments with the IDs of candidates in events; see `id_segments`.
    """
    # Each bucket gets a file, also one without IDs.
    every: list[tuple[Key, Segment | None]] = [
        (("candidates", bucket), None) for bucket in range(plan.num_buckets["candidates"])
    ]
    return (
        (
            to_buckets(seen, plan, {"candidates": _ID}),
            pipeline | "CandidateBuckets" >> beam.Create(every),
        )
        | "SeenAndAll" >> beam.Flatten()
        | "ByCandidateBucket" >> beam.GroupByKey()
        | "WriteCandidates" >> beam.Map(_write_candidates, plan, buckets)
    )


def id_segments(
    plan: IngestPlan, ids: Any, num_events: Counts, num_train: Counts
) -> Iterator[tuple[Key, Segment]]:
    """Write distinct candidate IDs to a file with one segment per group of buckets.

    `ids` are strings without nulls [n]; `num_events` and `num_train` count their events, and those
    of them in training [n].
    """
    table = pa.table({_ID: ids, "events": num_events, "train": num_train})
    return write_groups(plan, "candidates", table, _ID)


def total_counts(written: Sequence[SplitFile], split: str) -> Counter[str]:
    """Return the sums of the counts of a split's files."""
    total: Counter[str] = Counter()
    for file in written:
        if file.split == split:
            total.update(file.counts)
    return total


def publish(written: Sequence[SplitFile], splits: Sequence[str], examples_dir: str) -> None:
    """Move the files of the splits to their final paths in `examples_dir`."""
    targets: dict[str, str] = {}
    for split in splits:
        folder = files.make_folder(f"{examples_dir}/Split-{split}")
        mine = [file for file in written if file.split == split]
        for file in mine:
            name = f"data_tfrecord-{file.bucket:05d}-of-{len(mine):05d}.gz"
            targets[file.path] = f"{folder}/{name}"
    files.rename(list(targets), list(targets.values()))


def _write_timelines(
    keyed: tuple[int, Iterable[None]], plan: IngestPlan, buckets: BucketPaths, cut: Cut | None
) -> Iterator[Any]:
    """Write the splits of one bucket; the main output is segments of candidates in training."""
    bucket, _ = keyed
    config = plan.config
    names = config.split.split_names[:-1]
    if bucket not in buckets["interactions"]:
        for name in names:
            yield TaggedOutput(_FILES, _write_split(plan, name, bucket, (), {}))
        return
    events = read_table(buckets["interactions"][bucket])
    path = buckets["queries"].get(bucket)
    spec, max_events = config.spec, config.data.max_events
    splits = assign_splits(events, spec.query_id, spec.candidate_id, config.split, cut)
    query_ids = events[spec.query_id].combine_chunks()
    queries = np.asarray(query_ids.indices, dtype=np.int64)
    encoder = TimelineEncoder(spec, events, None if path is None else read_table(path))
    num_events = np.bincount(queries, minlength=len(query_ids.dictionary))
    unmatched = np.flatnonzero(encoder.without_features)
    totals = {
        "one_event_queries": int((num_events == 1).sum()),
        **_join_counts(num_events, unmatched),
    }
    sampled = _sampled(plan, "queries", query_ids.dictionary, unmatched)
    for code, name in enumerate(names):
        if code == TRAIN:
            timelines = train_timelines(queries, splits, max_events)
        else:
            timelines = held_out_timelines(queries, splits, code, max_events)
        counts = {**_count(timelines, int((splits == code).sum())), **totals}
        batches = encoder.batches(timelines, plan.sizing.batch_events)
        file = _write_split(plan, name, bucket, batches, counts, unmatched_ids=sampled)
        yield TaggedOutput(_FILES, file)
        totals, sampled = {}, ()
    candidates = events[spec.candidate_id].combine_chunks()
    codes, num_ids = np.asarray(candidates.indices), len(candidates.dictionary)
    num_all, num_train = (
        np.bincount(some, minlength=num_ids) for some in (codes, codes[splits == TRAIN])
    )
    yield from id_segments(plan, candidates.dictionary, num_all, num_train)


def _write_candidates(
    keyed: tuple[Key, Iterable[Segment | None]], plan: IngestPlan, buckets: BucketPaths
) -> SplitFile:
    """Write the catalogue rows of one bucket, then the IDs that only training events have.

    With `only_listed`, such IDs are only counted, unless there is no catalogue.
    """
    (_, bucket), segments = keyed
    spec = plan.config.spec
    found = [read_segment(segment) for segment in segments if segment is not None]
    seen = pa.concat_tables([_NO_IDS, *found]).combine_chunks()
    coded = seen[_ID].combine_chunks().dictionary_encode()
    num_events, num_train = (
        np.bincount(np.asarray(coded.indices), seen[name], len(coded.dictionary)).astype(np.int64)
        for name in ("events", "train")
    )
    path = buckets["candidates"].get(bucket)
    catalogue = None if path is None else read_table(path)
    known = seen[_ID][:0] if catalogue is None else catalogue[spec.candidate_id]
    known = known.combine_chunks()
    is_unmatched = ~np.asarray(pc.is_in(coded.dictionary, value_set=known), bool)
    not_listed = coded.dictionary.filter(pa.array(is_unmatched & (num_train > 0)))
    not_listed = not_listed.take(pc.sort_indices(not_listed))
    has_catalogue = plan.config.data.candidates is not None
    added = not_listed[:0] if has_catalogue and plan.config.data.only_listed else not_listed
    ids = pa.concat_arrays([known, added])
    rows = np.concatenate((np.arange(len(known)), np.full(len(added), -1)))
    unmatched = np.flatnonzero(is_unmatched)
    counts = {
        "candidates": len(ids),
        "candidates_added": len(added),
        "candidates_not_listed": len(not_listed),
        "candidates_without_events": len(known) - int((~is_unmatched & (num_train > 0)).sum()),
        **_join_counts(num_events, unmatched),
    }
    added_path = None
    if len(not_listed) and has_catalogue:
        added_path = write_table(pa.table({ADDED_ID: not_listed}), plan.spill_dir)
    batches = candidate_batches(spec, ids, catalogue, rows, plan.sizing.batch_events)
    sampled = _sampled(plan, "candidates", coded.dictionary, unmatched)
    return _write_split(plan, "candidates", bucket, batches, counts, added_path, sampled)


def _join_counts(num_events: Counts, unmatched: Counts) -> dict[str, int]:
    """Return the counts of a join from the events of each ID and the positions of unmatched IDs."""
    return {
        "num_events": int(num_events.sum()),
        "unmatched_events": int(num_events[unmatched].sum()),
        "num_ids": len(num_events),
        "unmatched_ids": len(unmatched),
    }


def _sampled(plan: IngestPlan, source: Source, ids: Any, unmatched: Counts) -> tuple[str, ...]:
    """Return the unmatched IDs of a bucket that have the lowest hashes; they are a random sample.

    The sample is empty if the source has no file.
    """
    if getattr(plan.config.data, source) is None:
        return ()
    found = ids.take(pa.array(unmatched))
    count = max(_LEAST_SAMPLED, _MOST_SAMPLED // plan.num_buckets[source])
    return tuple(found.take(pa.array(np.argsort(hash_strings(found))[:count])).to_pylist())


def _count(timelines: Timelines, num_events: int) -> dict[str, int]:
    """Return the counts of a split; `events` does not include history."""
    num_targets = int(timelines.is_target.sum())
    return {
        "timelines": len(timelines),
        "events": num_events,
        "history_events": len(timelines.positions) - num_targets if num_targets else 0,
        "timelines_cut": timelines.num_cut,
    }


def _write_split(
    plan: IngestPlan,
    split: str,
    bucket: int,
    batches: Iterable[pa.RecordBatch],
    counts: Mapping[str, int],
    added: str | None = None,
    unmatched_ids: tuple[str, ...] = (),
) -> SplitFile:
    path = new_path(plan.spill_dir)
    write_examples(path, batches)
    return SplitFile(split, bucket, path, counts, added, unmatched_ids)
