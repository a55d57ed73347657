"""The choice of the columns that say when a candidate is available."""

from __future__ import annotations

import polars as pl
import pytest

from pipeline.init.availability import draft_availability

DAY = 86_400
START = 1_700_000_000
IDS = [f"i{number}" for number in range(100)]


def drafted(unit: str = "s", **columns: list[object]) -> dict[str, str]:
    """Return the column by setting; each candidate has one event, on day 10."""
    candidates = pl.DataFrame({"id": IDS, **columns}, strict=False)
    time_us = (START + 10 * DAY) * 1_000_000
    events = pl.DataFrame({"id": IDS, "time": [time_us] * len(IDS)})
    found = draft_availability(candidates, "id", events, unit)
    return {each.setting: each.column for each in found}


@pytest.mark.parametrize(
    "name", ["published", "release_date", "listed_at", "AvailableFrom", "date_added", "launch_ts"]
)
def test_a_time_before_the_events_is_when_candidates_become_available(name: str):
    assert drafted(**{name: [START] * 100}) == {"available_from": name}


@pytest.mark.parametrize("name", ["delisted", "removed_at", "valid_until", "expiry_date"])
def test_a_time_after_the_events_is_when_candidates_are_gone(name: str):
    # Most candidates are still available.
    assert drafted(**{name: [START + 20 * DAY, *[None] * 99]}) == {"available_until": name}


def test_times_that_the_events_contradict_are_left_out():
    later = [START + 20 * DAY] * 6
    assert drafted(published=[START] * 94 + later) == {}
    assert drafted(published=[START] * 96 + later[:4]) == {"available_from": "published"}
    assert drafted(expires=[START] * 100) == {}


def test_other_columns_and_formats_are_left_out():
    assert drafted(updated=[START] * 100, price=[3] * 100) == {}
    assert drafted(published=["2023-11-01"] * 100) == {}
    assert drafted(published=["soon"] + [str(START)] * 99) == {}
    assert drafted(published=[None] * 100) == {}
    assert drafted(available=[1] * 100, released=[1995] * 100) == {}
