"""How queries behave over time: what the objective and the evaluation are chosen by."""

from dataclasses import dataclass

import polars as pl

from models.features import ColumnsConfig
from pipeline.init_config.column_profile import profile
from pipeline.init_config.event_times import TimestampUnit

_SESSION_EVENTS = 20
_SESSION_S = 24 * 3600
_UNITS_PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True)
class EventHabits:
    """What was seen in the events.

    Attributes:
        events_per_query: Median.
        span_s: Median seconds from a query's first event to its last; None: no times.
        repeat_share: Share of events whose candidate the query has had before.
        has_rating: Whether events are ratings.
    """

    events_per_query: float
    span_s: float | None
    repeat_share: float
    has_rating: bool

    @property
    def is_session_like(self) -> bool:
        """Whether queries are short visits in which the order matters."""
        return (
            not self.has_rating
            and self.span_s is not None
            and self.events_per_query <= _SESSION_EVENTS
            and self.span_s <= _SESSION_S
        )


def event_habits(
    events: pl.DataFrame, columns: ColumnsConfig, unit: TimestampUnit | None
) -> EventHabits:
    """Measures the events; queries with a single one tell nothing of a span."""
    query, candidate = columns.query_id, columns.candidate_id
    per_query = events.group_by(query).agg(pl.len().alias("count"))["count"]
    repeats = 1 - events.select(query, candidate).n_unique() / events.height
    span_s = None
    if columns.timestamp is not None and unit is not None:
        seconds = _seconds(events[columns.timestamp], unit)
        spans = (
            events.select(pl.col(query))
            .with_columns(seconds.alias("#s"))
            .group_by(query)
            .agg((pl.col("#s").max() - pl.col("#s").min()).alias("span"), pl.len().alias("count"))
            .filter(pl.col("count") > 1)["span"]
        )
        span_s = _median(spans) if spans.len() else None
    return EventHabits(_median(per_query), span_s, repeats, columns.rating is not None)


def _seconds(column: pl.Series, unit: TimestampUnit) -> pl.Series:
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("us")).cast(pl.Int64) / 10**6
    if unit == "iso8601":
        # Zones hardly matter to the length of a visit.
        plain = column.str.strip_chars().str.slice(0, 19).str.replace(" ", "T")
        whole = pl.select(
            pl.when(plain.str.len_chars() == 10).then(plain + "T00:00:00").otherwise(plain)
        ).to_series()
        times = whole.str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False)
        return times.cast(pl.Datetime("us")).cast(pl.Int64) / 10**6
    return column.cast(pl.String).cast(pl.Float64, strict=False) / _UNITS_PER_S[unit]


def _median(series: pl.Series) -> float:
    median = series.cast(pl.Float64).median()
    return float(median) if isinstance(median, int | float) else 0.0


def has_numbers(column: pl.Series) -> bool:
    """Whether a column can be a rating."""
    return profile(column).content == "number"
