from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from components.interactions.sources.columns import TIME_US
from components.interactions.timelines.timelines import collapse_funnels, order_events

EVENTS = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abc"), st.integers(0, 3)),
    min_size=1,
    max_size=40,
)


def order(
    rows: list[tuple[str, str, int]], *, drop: bool, timed: bool = True
) -> tuple[pa.Table, int]:
    queries, candidates, times = zip(*rows, strict=True)
    columns = {"q": pa.array(queries), "c": pa.array(candidates)}
    if timed:
        columns[TIME_US] = pa.array(times, pa.int64())
    columns["rating"] = pa.array(np.arange(len(rows), dtype=np.float32))
    return order_events(pa.table(columns), "q", "c", drop_duplicates=drop)


def timelines(table: pa.Table) -> dict[str, list[int]]:
    """Places of the input by query."""
    by_query: dict[str, list[int]] = {}
    for query, place in zip(table["q"].to_pylist(), table["rating"].to_pylist(), strict=True):
        by_query.setdefault(query, []).append(int(place))
    return by_query


@given(EVENTS)
def test_timelines_are_sorted_by_time_and_then_by_appearance(rows: list[tuple[str, str, int]]):
    expected: dict[str, list[int]] = {}
    for place in sorted(range(len(rows)), key=lambda place: rows[place][2]):
        expected.setdefault(rows[place][0], []).append(place)
    assert timelines(order(rows, drop=False)[0]) == expected


@given(EVENTS)
def test_drops_all_but_the_first_of_equal_events(rows: list[tuple[str, str, int]]):
    table, num_duplicates = order(rows, drop=True)
    kept = {rows[place]: place for place in reversed(range(len(rows)))}
    places = sorted(place for some in timelines(table).values() for place in some)
    assert places == sorted(kept.values())
    assert num_duplicates == len(rows) - len(kept)


@given(EVENTS)
def test_without_times_there_are_no_duplicates(rows: list[tuple[str, str, int]]):
    expected: dict[str, list[int]] = {}
    for place, (query, _, _) in enumerate(rows):
        expected.setdefault(query, []).append(place)
    table, num_duplicates = order(rows, drop=True, timed=False)
    assert timelines(table) == expected
    assert num_duplicates == 0


def test_a_funnel_is_its_first_event_of_the_highest_type():
    # Query, candidate, time in seconds, type; the last column is whether the event is kept.
    rows = [
        ("u", "a", 0, "view", False),
        ("u", "b", 1, "view", True),
        ("u", "a", 10, "buy", True),
        ("u", "a", 20, "buy", False),
        ("u", "a", 29, "cart", False),
        # Too long after the last event of the funnel.
        ("u", "a", 40, "odd", False),
        ("u", "a", 41, "view", True),
        ("v", "a", 41, "odd", True),
    ]
    queries, candidates, times, types, is_kept = zip(*rows, strict=True)
    columns = {
        "q": pa.array(queries),
        "c": pa.array(candidates),
        TIME_US: pa.array([time * 1_000_000 for time in times], pa.int64()),
        "event_type": pa.array(types),
        "rating": pa.array(np.arange(len(rows), dtype=np.float32)),
    }
    table, _ = order_events(pa.table(columns), "q", "c", drop_duplicates=True)
    found, num_removed = collapse_funnels(table, "q", "c", ["view", "cart", "buy"], 10)
    kept = np.flatnonzero(is_kept)
    assert sorted(place for some in timelines(found).values() for place in some) == [*kept]
    assert num_removed == len(rows) - len(kept)
    assert all(places == sorted(places) for places in timelines(found).values())
    assert collapse_funnels(table[:0], "q", "c", ["view"], 10)[1] == 0


def test_each_timeline_is_contiguous():
    rows = [(str(i % 7), "a", i) for i in range(50)]
    queries = order(rows, drop=False)[0]["q"].to_pylist()
    changes = sum(a != b for a, b in pairwise(queries))
    assert changes == 6
