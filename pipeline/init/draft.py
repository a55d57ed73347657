"""Draft of a configuration: the choice of features and settings from a sample of the data."""

from dataclasses import dataclass, field

from models.features.spec import RESERVED_KEYS, ColumnsConfig, FeatureConfig
from pipeline.errors import InitError
from pipeline.init.column_profile import profile
from pipeline.init.events import (
    EventStatistics,
    TimestampUnit,
    event_statistics,
    likely_time_column,
    timestamp_unit,
)
from pipeline.init.feature_kinds import SAFE_NAME, decide_kind, safe_feature_name
from pipeline.init.source_sample import SourceSample, count_rows, read_sample


@dataclass(frozen=True)
class Request:
    """The input files and the columns of IDs, time and rating, as given by the user.

    Attributes:
        interactions: File or glob of the events.
        query_id: Column of the query ID.
        candidate_id: Column of the candidate ID.
        candidates: File or glob of the catalogue.
        queries: File or glob of the queries' features.
        timestamp: Column of the time.
        rating: Column of the rating.
    """

    interactions: str
    query_id: str
    candidate_id: str
    candidates: str | None = None
    queries: str | None = None
    timestamp: str | None = None
    rating: str | None = None


@dataclass(frozen=True)
class DraftedColumn:
    """The decision about one column: the feature that it becomes, or that it is left out.

    Attributes:
        side: `query` or `candidate`.
        column: Name of the column in the file.
        name: Name of the feature, or None if the column is left out.
        feature: Settings of the feature, or None if the column is left out.
        reason: Explanation of the decision for the user.
    """

    side: str
    column: str
    name: str | None
    feature: FeatureConfig | None
    reason: str


@dataclass(frozen=True)
class Draft:
    """The decisions that a new configuration is written from.

    Attributes:
        columns: Names of the columns of IDs, time and rating.
        samples: The first rows of each input, by name of the input.
        unit: Unit of the time column, or None without a time column.
        drafted: Decisions about the other columns of the queries and candidates.
        statistics: Statistics of the events.
        unused: Event columns that the configuration does not use.
        hints: Suggestions for the user, as text.
    """

    columns: ColumnsConfig
    samples: dict[str, SourceSample]
    unit: TimestampUnit | None
    drafted: list[DraftedColumn]
    statistics: EventStatistics
    unused: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    @property
    def delimiter(self) -> str | None:
        """The delimiter of the CSV files, or None if there are none."""
        found = [s.delimiter for s in self.samples.values() if s.delimiter is not None]
        return found[0] if found else None


def make_draft(request: Request) -> Draft:
    """Draft a configuration from the first rows of the files.

    Raises:
        InitError: A file or a column is missing, or a column has the wrong values.
    """
    _check_roles(request)
    samples = {
        role: read_sample(role, pattern)
        for role in ("interactions", "candidates", "queries")
        if (pattern := getattr(request, role)) is not None
    }
    _check_delimiters(samples)
    _check_columns(request, samples)
    events = samples["interactions"].table
    columns = ColumnsConfig(
        query_id=request.query_id,
        candidate_id=request.candidate_id,
        timestamp=request.timestamp,
        rating=request.rating,
    )
    unit = None if request.timestamp is None else timestamp_unit(events[request.timestamp])
    if request.rating is not None and profile(events[request.rating]).content != "number":
        raise InitError(
            f"--rating {request.rating} must hold numbers, got {events[request.rating][0]!r}"
        )
    used = [column for column in _roles(request).values() if column is not None]
    draft = Draft(
        columns=columns,
        samples=samples,
        unit=unit,
        drafted=_draft_columns(request, samples),
        statistics=_statistics(samples["interactions"], columns),
        unused=[column for column in events.columns if column not in used],
    )
    if request.timestamp is None and (likely := likely_time_column(events, used)) is not None:
        draft.hints.append(
            f"column {likely!r} looks like the time of the events. With --timestamp {likely}, "
            "evaluation predicts later events from earlier ones, as in production"
        )
        draft.unused.remove(likely)
    if draft.unused:
        draft.hints.append(
            f"nothing uses these columns of the events: {', '.join(draft.unused)}. Put features of "
            "candidates or queries into a file for --candidates or --queries"
        )
    return draft


def _statistics(events: SourceSample, columns: ColumnsConfig) -> EventStatistics:
    found = event_statistics(events.table, columns)
    if events.is_complete:
        return found
    # The number of events and the length of timelines cannot be estimated from the first rows.
    num_events, num_queries = count_rows(events, columns.query_id)
    return EventStatistics(num_events, num_queries, found.repeat_share)


def _roles(request: Request) -> dict[str, str | None]:
    return {
        "--query-id": request.query_id,
        "--candidate-id": request.candidate_id,
        "--timestamp": request.timestamp,
        "--rating": request.rating,
    }


def _check_roles(request: Request) -> None:
    by_column: dict[str, str] = {}
    for option, column in _roles(request).items():
        if column is None:
            continue
        if column in by_column:
            raise InitError(
                f"{by_column[column]} and {option} must name different columns, both name "
                f"{column!r}"
            )
        by_column[column] = option
    for option in ("--query-id", "--candidate-id"):
        column = str(_roles(request)[option])
        if not SAFE_NAME.fullmatch(column) or column in RESERVED_KEYS:
            raise InitError(
                f"{option} must be letters, digits and _, begin with a letter and be none of "
                f"{', '.join(sorted(RESERVED_KEYS))}, because it is also the name in requests to "
                f"the served model; got {column!r}. Rename the column in the files"
            )


def _check_delimiters(samples: dict[str, SourceSample]) -> None:
    found = {role: s.delimiter for role, s in samples.items() if s.delimiter is not None}
    # A file with a single column has no delimiter.
    several = {role: d for role, d in found.items() if samples[role].table.width > 1}
    if len(set(several.values())) > 1:
        shown = ", ".join(f"{role} {delimiter!r}" for role, delimiter in several.items())
        raise InitError(f"all CSV files must have the same delimiter, got {shown}")


def _check_columns(request: Request, samples: dict[str, SourceSample]) -> None:
    for option, column in _roles(request).items():
        if column is not None:
            samples["interactions"].require(column, option)
    for role, option in (("candidates", "--candidate-id"), ("queries", "--query-id")):
        if role in samples:
            samples[role].require(str(_roles(request)[option]), option)


def _draft_columns(request: Request, samples: dict[str, SourceSample]) -> list[DraftedColumn]:
    drafted = []
    ids = {request.query_id, request.candidate_id}
    taken = set(ids)
    for role, side, id_column in (
        ("queries", "query", request.query_id),
        ("candidates", "candidate", request.candidate_id),
    ):
        if role not in samples:
            continue
        for column in samples[role].table.iter_columns():
            if column.name == id_column:
                continue
            decision = decide_kind(profile(column))
            name = None
            if decision.feature is not None:
                name = safe_feature_name(column.name, side, taken)
                taken.add(name)
            drafted.append(
                DraftedColumn(side, column.name, name, decision.feature, decision.reason)
            )
    return drafted
