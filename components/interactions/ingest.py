"""Convert input files to Examples.

1. Choose the spans to read, if the patterns have spans (`spans/`).
2. Find the files of each source and inspect their columns (`sources/`).
3. In a first Beam pipeline (`read_stage.py`), read the files in blocks, separate bad rows
   (`rows/`), and order the good ones in buckets on disk (`buckets.py`).
4. Find the cut of a temporal split (`splits/`).
5. In a second Beam pipeline (`write_stage.py`), assign the events to splits, and write timelines
   and candidates (`timelines/`).
"""

from collections.abc import Sequence
from typing import Any

from components import files
from components.beam_results import MakePipeline, run_and_collect
from components.interactions.buckets import IngestPlan, Sizing, make_plan
from components.interactions.config import NEWEST_SPAN, SOURCES, IngestConfig, Source
from components.interactions.errors import EmptySplitError, NoInputError, UnreadableFileError
from components.interactions.read_stage import ReadFacts, read_and_order
from components.interactions.report import make_report, show_time, write_reports
from components.interactions.rows import bad_rows
from components.interactions.sources.bigquery import export_queries
from components.interactions.sources.files import find_files, no_rows
from components.interactions.spans.choice import check_empty_spans, choose_spans, unread_files
from components.interactions.splits.assignment import Cut
from components.interactions.splits.cut_time import find_cut, newest_span_begin
from components.interactions.write_stage import (
    OrderedBuckets,
    SplitFile,
    publish,
    split_and_write,
    total_counts,
)


def ingest(
    config: IngestConfig,
    examples_dir: str,
    rejected_dir: str,
    report_dir: str,
    make_pipeline: MakePipeline,
    sizing: Sizing = Sizing(),
) -> dict[str, Any]:
    """Convert the input files to Examples, write rejected rows and a report, and return the report.

    The files of Examples get their final names after both pipelines have succeeded.

    Args:
        config: The configuration of ingestion.
        examples_dir: Folder for one folder `Split-NAME` per split, and for temporary files.
        rejected_dir: Folder for `rejected.parquet`.
        report_dir: Folder for `ingest_report.json` and `added_candidates.parquet`.
        make_pipeline: Function that returns a new Beam pipeline. It is called twice, or three times
            if an input is a BigQuery query.
        sizing: Limits on the memory of a worker.

    Raises:
        IngestError: The input or a setting is invalid.
    """
    config = choose_spans(config)
    unread = unread_files(config)
    spill_dir = files.make_folder(f"{examples_dir}/.spill")
    try:
        config = export_queries(config, spill_dir, make_pipeline)
        plan, facts = read_sources(config, SOURCES, spill_dir, make_pipeline, sizing)
        _check_events(plan, facts)
        cut = _cut(config, facts) if config.split.method == "temporal" else None
        buckets = OrderedBuckets(*(bucket_paths(facts, source) for source in SOURCES))
        written = run_and_collect(
            make_pipeline,
            lambda pipeline: split_and_write(pipeline, plan, buckets, cut),
            spill_dir,
        )
        _check_splits(plan, cut, written)
        report = make_report(plan, facts, cut, written, unread)
        publish(written, plan.config.split.split_names, examples_dir)
        write_reports(report, facts.rejects, written, rejected_dir, report_dir)
    finally:
        files.remove(spill_dir)
    return report


def read_sources(
    config: IngestConfig,
    sources: Sequence[Source],
    spill_dir: str,
    make_pipeline: MakePipeline,
    sizing: Sizing,
) -> tuple[IngestPlan, ReadFacts]:
    """Run the first pipeline and check its results.

    Raises:
        UnreadableFileError: A file is damaged or does not have the expected format.
        NoInputError: The files of a source have no rows.
        BadRowsError: There are bad rows, and `ingest.bad_rows` is `stop`.
    """
    plan = make_plan(config, find_files(config, sources), spill_dir, sizing)
    facts = ReadFacts.collect(
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
        raise bad_rows.bad_rows_error(facts.rejects)
    return plan, facts


def bucket_paths(facts: ReadFacts, source: Source) -> dict[int, str]:
    """Return the paths of the ordered buckets of a source, by bucket number."""
    return {bucket.bucket: bucket.path for bucket in facts.of_source(source)}


def _check_events(plan: IngestPlan, facts: ReadFacts) -> None:
    events = facts.of_source("interactions")
    if not events:
        raise NoInputError(
            "`ingest.bad_rows: reject` rejected every event. "
            + str(bad_rows.bad_rows_error(facts.rejects))
        )
    if not any(bucket.num_rows for bucket in events):
        num_below = sum(bucket.num_below_min_rating for bucket in events)
        raise NoInputError(
            f"no event is rated at least `events.min_rating: {plan.config.data.min_rating:g}`; "
            f"all {num_below} have lower ratings"
        )
    check_empty_spans(plan.config.chosen_spans, facts.spans_with_events(plan))


def _cut(config: IngestConfig, facts: ReadFacts) -> Cut:
    times = [bucket.times for bucket in facts.buckets if bucket.times is not None]
    if config.split.eval_from != NEWEST_SPAN:
        return find_cut(config.split, times)
    begin = newest_span_begin([b.span_times for b in facts.buckets if b.span_times is not None])
    if begin is None:
        raise EmptySplitError(
            "split `eval` has no events: with `split.eval_from: newest_span` it holds those of the "
            "newest span, which has none"
        )
    return find_cut(config.split, times, begin)


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
