"""Report of an ingestion: counts of files, spans, rows, events and candidates."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components import files
from components.interactions.buckets import IngestPlan, read_table
from components.interactions.config import SOURCES, Source
from components.interactions.joins import Join, join_warnings
from components.interactions.read_stage import ReadFacts
from components.interactions.rows.bad_rows import (
    REJECTED_FILE,
    StoredBadRows,
    count_by_reason,
    write_rejected,
)
from components.interactions.rows.missing_words import missing_word_warnings
from components.interactions.rows.outliers import number_warnings
from components.interactions.rows.time_formats import show_time, time_warnings
from components.interactions.sources.columns import source_columns
from components.interactions.spans.choice import empty_spans
from components.interactions.spans.pattern import ChosenSpans, SpanFiles
from components.interactions.splits.assignment import Cut
from components.interactions.write_stage import ADDED_ID, SplitFile, total_counts

REPORT_FILE = "ingest_report.json"
ADDED_FILE = "added_candidates.parquet"
_NONE_ADDED = pa.table({ADDED_ID: pa.array([], pa.string())})
_NUM_SHOWN = 5


def make_catalogue_report(
    plan: IngestPlan, facts: ReadFacts, written: Sequence[SplitFile]
) -> dict[str, Any]:
    """Return the report of reading only the catalogue, as a dictionary for JSON."""
    candidates = total_counts(written, "candidates")
    ignored = {source: _ignored(plan, source) for source in SOURCES}
    missing_words = sum((bucket.missing_words for bucket in facts.buckets), Counter())
    report = {
        "files": _files(plan, facts),
        "ignored_columns": {source: names for source, names in ignored.items() if names},
        "candidates": candidates["candidates"],
        "repeated_candidate_rows": _repeated(facts, "candidates"),
        "rejected_rows": count_by_reason(facts.rejects),
        "warnings": [
            *_not_listed(plan, candidates["candidates_not_listed"]),
            *missing_word_warnings(missing_words, plan.config.data),
            *number_warnings((bucket.numbers for bucket in facts.buckets), plan.config.spec),
        ],
    }
    if plan.config.data.candidates is not None:
        report["candidates_not_listed"] = candidates["candidates_not_listed"]
        report["candidates_added_from_train_events"] = candidates["candidates_added"]
    return report


def make_report(
    plan: IngestPlan,
    facts: ReadFacts,
    cut: Cut | None,
    written: Sequence[SplitFile],
    unread: Mapping[Source, Sequence[str]],
    joins: Sequence[Join],
) -> dict[str, Any]:
    """Return the report of an ingestion as a dictionary for JSON.

    `unread` has the result of `unread_files`.
    """
    data = plan.config.data
    train, candidates = total_counts(written, "train"), total_counts(written, "candidates")
    ranges = [bucket.time_range for bucket in facts.buckets if bucket.time_range is not None]
    times = (min(first for first, _ in ranges), max(last for _, last in ranges)) if ranges else ()
    shown = ("timelines", "events", "history_events", "timelines_cut")
    splits = {}
    for name in plan.config.split.split_names[:-1]:
        counts = total_counts(written, name)
        splits[name] = {key: counts[key] for key in shown}
    catalogue = make_catalogue_report(plan, facts, written)
    report = catalogue | {
        "joins": {join.source: join.to_json() for join in joins},
        "warnings": [
            *join_warnings(joins, data),
            *catalogue["warnings"],
            *(time_warnings(*times) if times else []),
        ],
        "spans": _spans(plan, facts, unread),
        "events": sum(split["events"] for split in splits.values()),
        "queries": train["num_ids"],
        "duplicate_events_dropped": _repeated(facts, "interactions"),
        "events_below_min_rating": sum(bucket.num_below_min_rating for bucket in facts.buckets),
        "events_collapsed": sum(bucket.num_collapsed for bucket in facts.buckets),
        "repeated_query_rows": _repeated(facts, "queries"),
        "one_event_queries": train["one_event_queries"],
        "splits": splits,
        "cut": _cut(cut),
        "times": [show_time(micros) for micros in times],
        "events_by_day": {
            str(np.datetime64(day, "D")): number for day, number in sorted(_by_day(facts).items())
        },
    }
    if data.queries is not None:
        report["queries_without_features"] = train["unmatched_ids"]
    if data.candidates is not None:
        report["candidates_without_train_events"] = candidates["candidates_without_events"]
    return report


def write_reports(
    report: Mapping[str, Any],
    rejected: Sequence[StoredBadRows],
    written: Sequence[SplitFile],
    rejected_dir: str,
    report_dir: str,
) -> None:
    """Write the bad rows, the report, and the IDs of candidates that the catalogue lacks."""
    write_rejected(rejected, f"{rejected_dir}/{REJECTED_FILE}")
    added = [read_table(file.added) for file in written if file.added is not None]
    with files.open_to_write(f"{report_dir}/{ADDED_FILE}") as stream:
        pq.write_table(pa.concat_tables([_NONE_ADDED, *added]), stream)
    text = json.dumps(report, indent=2, ensure_ascii=False)
    files.write_text(f"{report_dir}/{REPORT_FILE}", f"{text}\n")


def _files(plan: IngestPlan, facts: ReadFacts) -> list[Mapping[str, Any]]:
    rows = {(file.source, file.index): file.num_rows for file in facts.files}
    rejected: Counter[tuple[Source, int]] = Counter()
    for found in facts.rejects:
        rejected[found.source, found.index] += sum(found.counts.values())
    return [
        {
            "source": file.source,
            "file": file.name,
            "bytes": file.size_bytes,
            "rows": rows.get((file.source, file.index), 0),
            "rejected": rejected[file.source, file.index],
        }
        for file in plan.files
    ]


def _spans(
    plan: IngestPlan, facts: ReadFacts, unread: Mapping[Source, Sequence[str]]
) -> dict[str, Any] | None:
    chosen = plan.config.chosen_spans
    if chosen is None:
        return None
    empty = empty_spans(chosen, facts.spans_with_events(plan))
    missing = sorted([*chosen.missing, *(found.span for found in empty)])
    report: dict[str, Any] = {
        "missing": [chosen.show(span) for span in missing],
        "empty": _versions(chosen, empty),
        "unread": {
            source: {"files": len(paths), "first": list(paths[:_NUM_SHOWN])}
            for source, paths in unread.items()
        },
    }
    for source in SOURCES:
        if spans := chosen.of(source):
            read = [s for s in spans if source != "interactions" or s not in empty]
            report[source] = _versions(chosen, read)
    return report


def _versions(chosen: ChosenSpans, spans: Sequence[SpanFiles]) -> list[dict[str, Any]]:
    return [{"span": chosen.show(found.span), "version": found.version} for found in spans]


def _ignored(plan: IngestPlan, source: Source) -> list[str]:
    read = {column.column for column in source_columns(plan.config, source)}
    headers = [file.header for file in plan.files if file.source == source and file.header]
    return [name for name in headers[0] if name not in read] if headers else []


def _repeated(facts: ReadFacts, source: Source) -> int:
    return sum(bucket.num_repeated for bucket in facts.of_source(source))


def _not_listed(plan: IngestPlan, number: int) -> list[str]:
    data = plan.config.data
    if not number or data.candidates is None or not data.only_listed:
        return []
    return [
        f"{number:,} candidates of training events have no row in `candidates.file`, so they are "
        "never recommended. `candidates.only_listed: false` recommends them too"
    ]


def _by_day(facts: ReadFacts) -> Counter[int]:
    total: Counter[int] = Counter()
    for bucket in facts.buckets:
        total.update(bucket.days)
    return total


def _cut(cut: Cut | None) -> dict[str, str] | None:
    if cut is None:
        return None
    moments = {"eval_from": cut.eval_us, "test_from": cut.test_us}
    return {name: show_time(micros) for name, micros in moments.items() if micros is not None}
