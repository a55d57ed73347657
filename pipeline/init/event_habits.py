"""How queries behave: what training and evaluation are chosen by."""

from dataclasses import dataclass

import polars as pl

from models.features.spec import ColumnsConfig
from pipeline.init.column_profile import profile


@dataclass(frozen=True)
class EventHabits:
    """What was seen in the events.

    Attributes:
        num_events: How many there are.
        num_queries: That these are of, about.
        repeat_share: Share of events whose candidate the query has had before, of those that were
            looked at, which may be the first of many.
    """

    num_events: int
    num_queries: int
    repeat_share: float


def event_habits(events: pl.DataFrame, columns: ColumnsConfig) -> EventHabits:
    """Measures the events."""
    query, candidate = columns.query_id, columns.candidate_id
    # Ingestion drops what is there twice.
    keys = [query, candidate, *([columns.timestamp] if columns.timestamp else [])]
    num_events = events.select(keys).n_unique()
    pairs = events.select(query, candidate).n_unique()
    return EventHabits(num_events, events[query].n_unique(), 1 - pairs / num_events)


def has_numbers(column: pl.Series) -> bool:
    """Whether a column can be a rating."""
    return profile(column).content == "number"
