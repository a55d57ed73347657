"""Drafts a configuration from files: which features, how to split, what to learn."""

from dataclasses import dataclass, field

from models.features.spec import RESERVED_KEYS, ColumnsConfig, FeatureConfig
from pipeline.errors import InitError
from pipeline.init.column_profile import profile
from pipeline.init.event_habits import EventHabits, event_habits, has_numbers
from pipeline.init.event_times import TimestampUnit, likely_time_column, timestamp_unit
from pipeline.init.feature_kinds import decide_kind
from pipeline.init.feature_names import SAFE_NAME, safe_feature_name
from pipeline.init.source_sample import SourceSample, count_rows, read_sample


@dataclass(frozen=True)
class Request:
    """What the caller named.

    Attributes:
        interactions: File or glob of the events.
        candidates: File or glob of the catalogue.
        queries: File or glob of the queries' features.
        query_id: Column.
        candidate_id: Column.
        timestamp: Column.
        rating: Column.
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
    """What becomes of one column.

    Attributes:
        side: `query` or `candidate`.
        column: In the file.
        name: Of the feature; None: left out.
        feature: Its declaration.
        reason: Why.
    """

    side: str
    column: str
    name: str | None
    feature: FeatureConfig | None
    reason: str


@dataclass(frozen=True)
class Draft:
    """A configuration before it is text.

    Attributes:
        columns: Ids, timestamp and rating.
        samples: What was read, by role.
        unit: Of the timestamp; None: there is none.
        drafted: All other columns of queries and catalogue.
        habits: Of the events.
        unused: Columns of the interactions that nothing uses.
        hints: What the caller may want to do differently.
    """

    columns: ColumnsConfig
    samples: dict[str, SourceSample]
    unit: TimestampUnit | None
    drafted: list[DraftedColumn]
    habits: EventHabits
    unused: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    @property
    def delimiter(self) -> str | None:
        """Of the CSV files; None: there are none."""
        found = [s.delimiter for s in self.samples.values() if s.delimiter is not None]
        return found[0] if found else None


def make_draft(request: Request) -> Draft:
    """Looks at the files and decides.

    Raises:
        InitError: A file or a column is missing, or a column cannot play its role.
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
    if request.rating is not None and not has_numbers(events[request.rating]):
        raise InitError(
            f"--rating {request.rating}: must hold numbers, got {events[request.rating][0]!r}"
        )
    used = [column for column in _roles(request).values() if column is not None]
    draft = Draft(
        columns=columns,
        samples=samples,
        unit=unit,
        drafted=_draft_columns(request, samples),
        habits=_habits(samples["interactions"], columns),
        unused=[column for column in events.columns if column not in used],
    )
    if request.timestamp is None and (likely := likely_time_column(events, used)) is not None:
        draft.hints.append(
            f"column {likely!r} looks like the time of the events: with --timestamp {likely} the "
            "split is a cut in time, as in production"
        )
        draft.unused.remove(likely)
    if draft.unused:
        draft.hints.append(
            f"columns of the interactions that nothing uses: {', '.join(draft.unused)}. What "
            "describes a candidate or a query belongs into a file for --candidates or --queries"
        )
    return draft


def _habits(events: SourceSample, columns: ColumnsConfig) -> EventHabits:
    habits = event_habits(events.table, columns)
    if events.is_complete:
        return habits
    # The first rows of a log hold the beginnings of long timelines, and say nothing of its size.
    num_events, num_queries = count_rows(events, columns.query_id)
    return EventHabits(num_events, num_queries, habits.repeat_share)


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
                f"{by_column[column]} and {option} both name column {column!r}; each needs its own"
            )
        by_column[column] = option
    for option in ("--query-id", "--candidate-id"):
        column = str(_roles(request)[option])
        if not SAFE_NAME.fullmatch(column) or column in RESERVED_KEYS:
            raise InitError(
                f"{option}: an id's column is also its name in requests to the served model, so it "
                "must be letters, digits and _, begin with a letter and be none of "
                f"{', '.join(sorted(RESERVED_KEYS))}; got {column!r}. Rename it in the files"
            )


def _check_delimiters(samples: dict[str, SourceSample]) -> None:
    found = {role: s.delimiter for role, s in samples.items() if s.delimiter is not None}
    # With one column any delimiter will do.
    several = {role: d for role, d in found.items() if samples[role].table.width > 1}
    if len(set(several.values())) > 1:
        shown = ", ".join(f"{role} {delimiter!r}" for role, delimiter in several.items())
        raise InitError(f"all CSV files must have one delimiter, got {shown}")


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
