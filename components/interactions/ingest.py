"""Convert input files to Examples.

1. Choose the spans to read, if the patterns have spans (`spans/`).
2. Find the files of each source and inspect their columns (`sources/`).
3. In a first Beam pipeline (`read_stage.py`), read the files in blocks, separate bad rows
   (`rows/`), and order the good ones in buckets on disk (`buckets.py`).
4. Find the cut of a temporal split (`splits/`).
5. In a second Beam pipeline (`write_stage.py`), assign the events to splits, and write timelines
   and candidates (`timelines/`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components import files
from components.beam_results import MakePipeline, run_and_collect
from components.interactions.buckets import IngestPlan, Sizing, make_plan, read_table
from components.interactions.config import NEWEST_SPAN, SOURCES, IngestConfig, Source
from components.interactions.errors import EmptySplitError, NoInputError, UnreadableFileError
from components.interactions.joins import Join, check_joins, make_join
from components.interactions.read_stage import ReadFacts, read_and_order
from components.interactions.report import (
    ADDED_FILE,
    make_catalogue_report,
    make_report,
    write_reports,
)
from components.interactions.rows import bad_rows
from components.interactions.rows.time_formats import show_time
from components.interactions.sources.bigquery import export_queries
from components.interactions.sources.files import find_files, no_rows
from components.interactions.spans.choice import check_empty_spans, choose_spans, unread_files
from components.interactions.splits.assignment import Cut
from components.interactions.splits.cut_time import find_cut, map_sorted_times, newest_span_begin
from components.interactions.write_stage import (
    ADDED_ID,
    SplitFile,
    id_segments,
    publish,
    split_and_write,
    total_counts,
    write_candidates,
)


class OutputFolders(NamedTuple):
    """The folders that an ingestion writes to; `examples` also has temporary files."""

    examples: str
    rejected: str
    report: str


def ingest(
    config: IngestConfig,
    outputs: OutputFolders,
    make_pipeline: MakePipeline,
    sizing: Sizing = Sizing(),
) -> dict[str, Any]:
    """Convert the input files to Examples, write rejected rows and a report, and return the report.

    The files of Examples get their final names after both pipelines have succeeded. `sizing` limits
    the memory of a worker. `make_pipeline` is called twice, or three times if an input is a
    BigQuery query.

    Raises:
        IngestError: The input or a setting is invalid.
    """
    config = choose_spans(config)
    unread = unread_files(config)
    with _spill_folder(outputs.examples) as spill_dir:
        config = export_queries(config, spill_dir, make_pipeline)
        plan, facts = read_sources(config, SOURCES, spill_dir, make_pipeline, sizing)
        _check_events(plan, facts)
        cut = _cut(config, facts) if config.split.method == "temporal" else None
        written = run_and_collect(
            make_pipeline,
            lambda pipeline: split_and_write(pipeline, plan, facts.bucket_paths(), cut),
            spill_dir,
        )
        _check_splits(plan, cut, written)
        joins = _joins(plan, facts, written)
        check_joins(joins, config.data)
        report = make_report(plan, facts, cut, written, unread, joins)
        publish(written, plan.config.split.split_names, outputs.examples)
        write_reports(report, facts.rejects, written, outputs.rejected, outputs.report)
    return report


def ingest_catalogue(
    config: IngestConfig,
    trained_report: str,
    outputs: OutputFolders,
    make_pipeline: MakePipeline,
    sizing: Sizing = Sizing(),
) -> dict[str, Any]:
    """Convert only the catalogue files to Examples, in the split `candidates`; see `ingest`.

    The split has the candidates in the files and, without `candidates.only_listed`, those that
    never had a row but occurred in the training events. A candidate whose row was removed from the
    files is dropped.

    `candidates.file` must be set. `trained_report` is the folder of the report of the ingestion
    that the model was trained on.
    """
    if config.data.candidates is None:
        raise NoInputError(
            "reading the catalogue alone needs `candidates.file`; without it the candidates come "
            "from the events, which only a full run reads"
        )
    sources: tuple[Source, ...] = ("candidates",)
    with _spill_folder(outputs.examples) as spill_dir:
        config = export_queries(config, spill_dir, make_pipeline, sources)
        plan, facts = read_sources(config, sources, spill_dir, make_pipeline, sizing)
        ids = _event_candidates(trained_report)
        once = np.ones(len(ids), np.int64)
        seen = list(id_segments(plan, ids, once, once))
        written = run_and_collect(
            make_pipeline,
            lambda pipeline: write_candidates(
                pipeline,
                plan,
                facts.bucket_paths(),
                pipeline | "EventCandidates" >> beam.Create(seen),
            ),
            spill_dir,
        )
        report = make_catalogue_report(plan, facts, written)
        publish(written, sources, outputs.examples)
        write_reports(report, facts.rejects, written, outputs.rejected, outputs.report)
    return report


@contextmanager
def _spill_folder(examples_dir: str) -> Iterator[str]:
    folder = files.make_folder(f"{examples_dir}/.spill")
    try:
        yield folder
    finally:
        files.remove(folder)


def _event_candidates(report_dir: str) -> Any:
    """Return the IDs of the candidates that only the training events had."""
    path = f"{report_dir}/{ADDED_FILE}"
    if not files.exists(path):
        raise NoInputError(
            f"{path} is missing, which lists the candidates that only the events had when the "
            "model was trained; run the whole pipeline once"
        )
    with files.open_to_read(path) as stream:
        ids = pq.read_table(stream)[ADDED_ID]
    return pa.concat_arrays([pa.array([], pa.string()), *ids.chunks])


def read_sources(
    config: IngestConfig,
    sources: Sequence[Source],
    spill_dir: str,
    make_pipeline: MakePipeline,
    sizing: Sizing,
) -> tuple[IngestPlan, ReadFacts]:
    """Run the first pipeline on some sources, check its results, and return them with the plan.

    Raises:
        IngestError: A file cannot be read, has no rows, or has bad rows that are not accepted.
    """
    plan = make_plan(config, find_files(config, sources), spill_dir, sizing)
    facts = ReadFacts(
        run_and_collect(make_pipeline, lambda pipeline: read_and_order(pipeline, plan), spill_dir)
    )
    failures = sorted(file.failure for file in facts.files if file.failure is not None)
    if failures:
        raise UnreadableFileError("\n".join(failures))
    for source in SOURCES:
        mine = [file for file in plan.files if file.source == source]
        if mine and not any(file.num_rows for file in facts.files if file.source == source):
            raise no_rows(source, mine)
    if facts.rejects and config.data.bad_rows == "stop":
        raise bad_rows.bad_rows_error(facts.rejects, config)
    return plan, facts


def _check_events(plan: IngestPlan, facts: ReadFacts) -> None:
    events = facts.of_source("interactions")
    if not events:
        raise NoInputError(
            "`ingest.bad_rows: reject` rejected every event. "
            + str(bad_rows.bad_rows_error(facts.rejects, plan.config))
        )
    if not any(bucket.num_rows for bucket in events):
        num_below = sum(bucket.num_below_min_rating for bucket in events)
        raise NoInputError(
            f"no event is rated at least `events.min_rating: {plan.config.data.min_rating:g}`; "
            f"all {num_below} have lower ratings"
        )
    check_empty_spans(plan.config.chosen_spans, facts.spans_with_events(plan))


def _cut(config: IngestConfig, facts: ReadFacts) -> Cut:
    with TemporaryDirectory() as folder:
        by_bucket = [
            [map_sorted_times(path, folder) for path in bucket.times]
            for bucket in facts.buckets
            if bucket.times
        ]
        if config.split.eval_from != NEWEST_SPAN:
            return find_cut(config.split, [times for (times,) in by_bucket])
        newest, earlier = zip(*by_bucket, strict=True)
        begin = newest_span_begin(newest, earlier)
    if begin is None:
        raise EmptySplitError(
            "split `eval` has no events: with `split.eval_from: newest_span` it holds those of the "
            "newest span, which has none"
        )
    return Cut(begin)


def _joins(plan: IngestPlan, facts: ReadFacts, written: Sequence[SplitFile]) -> list[Join]:
    joins = []
    # Each source, and the split whose files have the counts of its join.
    splits: dict[Source, str] = {"queries": "train", "candidates": "candidates"}
    for source, split in splits.items():
        key = plan.id_key(source)
        if buckets := sorted(facts.of_source(source), key=lambda found: found.bucket):
            # Beam returns results in no particular order.
            unmatched = sorted(
                id_ for file in written if file.split == split for id_ in file.unmatched_ids
            )
            num_rows = sum(bucket.num_rows for bucket in buckets)
            ids = (read_table(bucket.path)[key].combine_chunks() for bucket in buckets)
            counts = total_counts(written, split)
            data = plan.config.data
            joins.append(make_join(data, source, counts, num_rows, unmatched, ids))
    return joins


def _check_splits(plan: IngestPlan, cut: Cut | None, written: Sequence[SplitFile]) -> None:
    """Check that each split has events."""
    split = plan.config.split
    for name in split.split_names[:-1]:
        if total_counts(written, name)["events"]:
            continue
        if cut is not None:
            moments = f"eval from {show_time(cut.eval_us)}"
            if cut.test_us is not None:
                moments += f", test from {show_time(cut.test_us)}"
            cause = (
                f"method temporal splits into {moments}; an event exactly at a cut belongs to the "
                "later split"
            )
        elif split.method == "random":
            cause = (
                "method random draws each event by `eval_fraction` and `test_fraction`, and there "
                "are too few events for them"
            )
        else:
            shortest = 3 if split.with_test else 2
            cause = f"method leave_last_out needs a query with at least {shortest} events"
        raise EmptySplitError(f"split `{name}` has no events: {cause}")
