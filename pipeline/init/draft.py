"""Draft of a configuration: the choice of features and settings from a sample of the data."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from components.interactions.errors import IngestError, QueryError
from components.interactions.sources import sample
from components.interactions.sources.columns import plain_name
from components.interactions.spans.pattern import query_of
from models.features.spec import ColumnsConfig, FeatureConfig
from pipeline.errors import InitError, did_you_mean
from pipeline.init.availability import DraftedTime, draft_availability
from pipeline.init.column_profile import likely_time_column, profile
from pipeline.init.feature_kinds import decide_context, decide_kind, safe_feature_name
from pipeline.init.format_detection import FoundTimes, find_times
from pipeline.init.recipes import Choice, EventStatistics, choices, facts

# Enough to choose the kinds of features; ingestion reads all rows.
_SAMPLE_ROWS = 500_000


@dataclass(frozen=True)
class SourceSample:
    """The first rows of the `events`, `candidates` or `queries`; empty CSV fields are null."""

    pattern: Path
    table: pl.DataFrame
    unusable: Mapping[str, str]  # a reason for each column that the table lacks
    is_complete: bool  # whether the table has all rows of all files

    def require(self, column: str, option: str) -> None:
        """Raise an InitError if a column is missing; `option` is the option that names it."""
        names = self.table.columns
        if column in self.unusable:
            raise InitError(
                f"{option}: column {column!r} of {self.pattern} cannot be used: "
                f"{self.unusable[column]}"
            )
        if column in names and self.table[column].dtype.is_nested():
            raise InitError(
                f"{option}: column {column!r} of {self.pattern} must have one value per row, but "
                "has lists"
            )
        if column not in names:
            raise InitError(
                f"{option}: {self.pattern} has no column {column!r}"
                f"{did_you_mean(column, names)} Its columns: {', '.join(names)}"
            )

    def id_column(self, column: str) -> str:
        """Return the column of the IDs that the events have in `column`.

        This is the same column, or else the only one whose name differs in case, spaces and
        punctuation, or is `id`.
        """
        names = self.table.columns
        for wanted in (plain_name(column), "id"):
            similar = [name for name in names if plain_name(name) == wanted]
            if column not in names and len(similar) == 1:
                return similar[0]
        return column


@dataclass(frozen=True)
class DraftedColumn:
    """The feature that a column of the queries or candidates becomes, with the reason."""

    side: str  # query, candidate or context
    column: str
    name: str  # of the feature
    feature: FeatureConfig | None  # None if the column is left out
    reason: str


@dataclass(frozen=True)
class Draft:
    """The decisions that a new configuration is written from, and hints for the user."""

    columns: ColumnsConfig
    samples: dict[str, SourceSample]
    times: FoundTimes | None  # None without a time column
    rating_format: str | None
    drafted: list[DraftedColumn]
    availability: list[DraftedTime]
    choices: list[Choice]
    hints: list[str]


def make_draft(
    files: Mapping[str, str],
    columns: ColumnsConfig,
    timestamp_unit: str | None = None,
    preset: str | None = None,
) -> Draft:
    """Draft a configuration from the first rows of the files.

    `timestamp_unit` is detected if it is None. `preset` is one of `recipes.PRESETS`.

    Raises:
        InitError: A file or a column is missing, a column has the wrong values, or the preset does
            not exist.
    """
    options = {f"--{name.replace('_', '-')}": column for name, column in columns if column}
    _check_names(options)
    samples = {role: read_sample(role, pattern) for role, pattern in files.items()}
    for option, column in options.items():
        samples["events"].require(column, option)
    events = samples["events"].table
    times = rating = None
    if columns.timestamp is not None:
        times = find_times(events[columns.timestamp], timestamp_unit)
    if columns.rating is not None:
        rating = profile(events[columns.rating])
        if rating.content != "number":
            found = rating.problem or f"got {events[columns.rating][0]!r}"
            raise InitError(f"--rating {columns.rating} must hold numbers: {found}")
    rating_format = None if rating is None else rating.number_format
    unused = [column for column in events.columns if column not in options.values()]
    hints = []
    if (
        columns.timestamp is None
        and (likely := likely_time_column(events.select(unused))) is not None
    ):
        hints.append(
            f"column {likely!r} looks like the time of the events. With --timestamp {likely}, "
            "evaluation predicts later events from earlier ones, as in production"
        )
        unused.remove(likely)
    statistics = _statistics(samples["events"], columns, times)
    known = facts(statistics, preset)
    availability: list[DraftedTime] = []
    if times is not None and "candidates" in samples:
        availability = list(_draft_availability(samples, columns, times))
    drafted = list(_draft_columns(samples, columns, {each.column for each in availability}))
    if known["order"].holds:
        taken = {*id_keys(columns), *(column.name for column in drafted)}
        drafted += _draft_context(events.select(columns.candidate_id, *unused), taken)
    unused = [name for name in unused if name not in {each.column for each in drafted}]
    if unused:
        hints.append(
            f"nothing uses these columns of the events: {', '.join(unused)}. Name a rating or "
            "dwell time with --rating, and the event type with --event-type. Put features of "
            "candidates or queries into a file for --candidates or --queries"
        )
    if known["fresh"].holds:
        because = known["fresh"].because
        if not any(each.feature for each in drafted if each.side == "candidate"):
            hints.append(
                f"{because}. Only features can recommend these: give a catalogue with --candidates"
            )
        is_timed = any(each.setting == "available_from" for each in availability)
        if known["order"].holds and not is_timed:
            hints.append(
                f"{because}. With the times of their publication as `candidates.available_from`, "
                "the model learns how much newer candidates are preferred"
            )
    chosen = choices(statistics, known)
    return Draft(columns, samples, times, rating_format, drafted, availability, chosen, hints)


def read_sample(role: str, pattern: str, max_rows: int = _SAMPLE_ROWS) -> SourceSample:
    """Read the first rows of the files that match a pattern.

    Raises:
        InitError: No file matches, it has no rows, or it is not CSV, Parquet or TFRecord.
    """
    path = Path(pattern).expanduser().absolute()
    try:
        if query_of(pattern) is not None:
            raise QueryError("a query cannot be sampled; export some of its rows to a file")
        newest_span = role != "events"  # as ingestion does
        found = sample.read_sample(str(path), max_rows=max_rows, newest_span=newest_span)
    except IngestError as error:
        raise InitError(f"--{role}: {error}") from error
    return SourceSample(path, found.table, found.unusable, found.is_complete)


def _statistics(
    events: SourceSample, columns: ColumnsConfig, times: FoundTimes | None
) -> EventStatistics:
    query, candidate = columns.query_id, columns.candidate_id
    table = events.table.select(
        pl.col(query).alias("query"),
        pl.col(candidate).alias("candidate"),
        pl.lit(None, pl.Int64).alias("time") if times is None else times.times_us.alias("time"),
    ).unique()  # Duplicates are not counted, because ingestion drops them.
    num_events, num_queries = len(table), table["query"].n_unique()
    repeat_share = 1 - table.select("query", "candidate").n_unique() / num_events
    counts = table["candidate"].value_counts()["count"].sort(descending=True)
    head_share = int(counts.head(max(len(counts) // 100, 1)).sum()) / num_events
    order_share, fresh_share = None, 0.0
    if times is not None:
        moments = table.select("query", "time").n_unique()
        order_share = (moments - num_queries) / max(num_events - num_queries, 1)
        newest = table["time"].quantile(0.9, "lower")
        first = pl.col("time").min().over("candidate")
        of_newest = table.with_columns(first=first).filter(pl.col("time") > newest)["first"]
        fresh_share = int((of_newest > newest).sum()) / max(len(of_newest), 1)
    shares = repeat_share, order_share, fresh_share, head_share
    if events.is_complete:
        return EventStatistics(num_events, num_queries, table["candidate"].n_unique(), *shares)
    # These numbers cannot be estimated from the first rows.
    rows, queries, candidates = sample.count_rows(str(events.pattern), query, candidate)
    return EventStatistics(rows, queries, candidates, *shares)


def _check_names(options: Mapping[str, str]) -> None:
    by_column: dict[str, str] = {}
    for option, column in options.items():
        first = by_column.setdefault(column, option)
        if first != option:
            raise InitError(
                f"{first} and {option} must name different columns, both name {column!r}"
            )


def id_keys(columns: ColumnsConfig) -> tuple[str, str]:
    """Return the names of the query ID and the candidate ID in requests to the served model."""
    query_key = safe_feature_name(columns.query_id, "query", set())
    return query_key, safe_feature_name(columns.candidate_id, "candidate", {query_key})


def _draft_availability(
    samples: Mapping[str, SourceSample], columns: ColumnsConfig, times: FoundTimes
) -> Iterator[DraftedTime]:
    candidates, events = samples["candidates"], samples["events"]
    ids = candidates.id_column(columns.candidate_id)
    if ids in candidates.table.columns:
        chosen = pl.DataFrame(
            {"id": events.table[columns.candidate_id].cast(pl.String), "time": times.times_us}
        )
        yield from draft_availability(candidates.table, ids, chosen, times.unit)


def _draft_columns(
    samples: Mapping[str, SourceSample], columns: ColumnsConfig, others: Set[str]
) -> Iterator[DraftedColumn]:
    """Yield the columns of the candidates, except those in `others`, and of the queries."""
    taken = set(id_keys(columns))
    for role, side, id_column in (
        ("queries", "query", columns.query_id),
        ("candidates", "candidate", columns.candidate_id),
    ):
        if role not in samples:
            continue
        id_column = samples[role].id_column(id_column)
        samples[role].require(id_column, f"--{side}-id")
        without = {id_column, *(others if side == "candidate" else ())}
        for column in samples[role].table.drop(without).iter_columns():
            feature, reason = decide_kind(profile(column))
            name = column.name
            if feature is not None:
                name = safe_feature_name(column.name, side, taken)
                taken.add(name)
            yield DraftedColumn(side, column.name, name, feature, reason)
        for name, reason in samples[role].unusable.items():
            yield DraftedColumn(side, name or "(no name)", name, None, reason)


def _draft_context(table: pl.DataFrame, taken: set[str]) -> Iterator[DraftedColumn]:
    """Yield the columns of the events that requests can have too; `table` starts with the IDs."""
    candidate = table.to_series(0)
    for column in table.iter_columns():
        feature, reason = decide_context(column, candidate)
        if feature is not None:
            name = safe_feature_name(column.name, "context", taken)
            taken.add(name)
            yield DraftedColumn("context", column.name, name, feature, reason)
