"""Runs an ingestion from end to end: the driver's side of the two Beam pipelines."""

from collections.abc import Sequence
from typing import Any

from apache_beam.io.filesystems import FileSystems

from components.beam_results import (
    MakePipeline,
    make_folder,
    remove_folder,
    run_and_collect,
)
from components.interactions.buckets import IngestPlan, Sizing, make_plan
from components.interactions.config import NEWEST_SPAN, SOURCES, IngestConfig, Source
from components.interactions.errors import EmptySplitError, NoInputError, UnreadableFileError
from components.interactions.read_stage import ReadFacts, read_and_order
from components.interactions.report import make_report, show_time, write_reports
from components.interactions.rows import bad_rows
from components.interactions.sources.bigquery import export_queries
from components.interactions.sources.files import find_files, no_rows
from components.interactions.spans.choice import check_empty_spans, choose_spans, unread_files
from components.interactions.splits import cut_time
from components.interactions.splits.assignment import Cut
from components.interactions.splits.cut_time import find_newest_span
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
    """Turns the input files into Examples, rejected rows and a report.

    Files take their final names after everything has succeeded.

    Args:
        config: The settings.
        examples_dir: Gets one folder `Split-NAME` a split; temporary files lie here too.
        rejected_dir: Gets `rejected.parquet`.
        report_dir: Gets `ingest_report.json` and `added_candidates.parquet`.
        make_pipeline: Returns a new Beam pipeline; called twice, and once more for queries.
        sizing: What bounds the memory of a worker.

    Returns:
        The report.

    Raises:
        IngestError: The input cannot become Examples; the message says why.
    """
    config = choose_spans(config)
    unread = unread_files(config)
    spill_dir = FileSystems.join(examples_dir, ".spill")
    make_folder(spill_dir)
    try:
        config = export_queries(config, spill_dir, make_pipeline)
        files = find_files(config)
        plan = make_plan(config, files, spill_dir, sizing)
        facts = ReadFacts.collect(
            run_and_collect(
                make_pipeline, lambda pipeline: read_and_order(pipeline, plan), spill_dir
            )
        )
        _check(plan, facts)
        cut = None
        if config.split.method == "temporal":
            times = [bucket.times for bucket in facts.buckets if bucket.times is not None]
            cut = cut_time.find_cut(config.split, times, _newest_span_us(config, facts))
        buckets = OrderedBuckets(*(_paths(facts, source) for source in SOURCES))
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
        remove_folder(spill_dir)
    return report


def check_files(plan: IngestPlan, facts: ReadFacts) -> None:
    """Raises what the first pipeline found to be wrong with files and rows.

    Raises:
        UnreadableFileError: A file could not be read to its end.
        NoInputError: A source has no rows.
        BadRowsError: There are bad rows and `bad_rows` is stop.
    """
    failures = sorted(file.failure for file in facts.files if file.failure is not None)
    if failures:
        raise UnreadableFileError("\n".join(failures))
    for source in SOURCES:
        files = [file for file in plan.files if file.source == source]
        if files and not any(file.num_rows for file in facts.files if file.source == source):
            raise no_rows(source, files)
    if facts.rejects and plan.config.data.bad_rows == "stop":
        raise bad_rows.bad_rows_error(facts.rejects)


def _check(plan: IngestPlan, facts: ReadFacts) -> None:
    check_files(plan, facts)
    if not any(bucket.source == "interactions" for bucket in facts.buckets):
        raise NoInputError(
            "`ingest.bad_rows: reject` rejected every event. "
            + str(bad_rows.bad_rows_error(facts.rejects))
        )
    events = [bucket for bucket in facts.buckets if bucket.source == "interactions"]
    if not any(bucket.num_rows for bucket in events):
        raise NoInputError(
            f"`events.min_rating: {plan.config.data.min_rating:g}` leaves no event; all "
            f"{sum(bucket.num_below_min_rating for bucket in events)} are rated lower"
        )
    check_empty_spans(plan.config.chosen_spans, facts.spans_with_events(plan))


def _newest_span_us(config: IngestConfig, facts: ReadFacts) -> int | None:
    if config.split.eval_from != NEWEST_SPAN:
        return None
    times = [bucket.span_times for bucket in facts.buckets if bucket.span_times is not None]
    begins = find_newest_span(times)
    if begins is None:
        raise EmptySplitError(
            "split `eval` has no events: `split.eval_from: newest_span`, and there are none in the "
            "newest span"
        )
    return begins


def _check_splits(plan: IngestPlan, cut: Cut | None, files: Sequence[SplitFile]) -> None:
    """Raises where a split has no events to learn from or to be judged by."""
    split = plan.config.split
    for name in split.split_names[:-1]:
        if total_counts(files, name)["events"]:
            continue
        if cut is not None:
            moments = f"eval from {show_time(cut.eval_us)}"
            if cut.test_us is not None:
                moments += f", test from {show_time(cut.test_us)}"
            cause = (
                f"method temporal cuts into {moments}; an event at a cut belongs to the later split"
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


def _paths(facts: ReadFacts, source: Source) -> dict[int, str]:
    return {bucket.bucket: bucket.path for bucket in facts.buckets if bucket.source == source}
