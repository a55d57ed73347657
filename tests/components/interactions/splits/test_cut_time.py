from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.interactions.config import SplitConfig
from components.interactions.splits.assignment import Cut
from components.interactions.splits.cut_time import (
    Times,
    find_cut,
    map_sorted_times,
    newest_span_begin,
    write_sorted_times,
)

DAY_US = 86_400_000_000
# Few distinct values on each level, so that there are ties in days, seconds and microseconds.
TIMES = st.builds(
    lambda day, second, micro: day * DAY_US + second * 1_000_000 + micro,
    st.sampled_from([-1, 0, 1, 12_345]),
    st.sampled_from([0, 1, 2, 86_399]),
    st.sampled_from([0, 1, 999_999]),
)


def write_and_map(times: list[int], folder: Path) -> Times:
    path = write_sorted_times(np.array(times, np.int64), str(folder))
    return map_sorted_times(path, str(folder))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    buckets=st.lists(st.lists(TIMES, min_size=1, max_size=20), min_size=1, max_size=4),
    eval_fraction=st.sampled_from([0.01, 0.1, 0.3, 0.5]),
    test_fraction=st.sampled_from([0.0, 0.2, 0.4]),
)
def test_cut_is_the_exact_quantile(
    tmp_path: Path, buckets: list[list[int]], eval_fraction: float, test_fraction: float
):
    config = SplitConfig(
        method="temporal", eval_fraction=eval_fraction, test_fraction=test_fraction
    )
    written = [write_and_map(times, tmp_path) for times in buckets]
    newest = sorted((time for times in buckets for time in times), reverse=True)

    def brute_force(percent: int) -> int:
        rank = (len(newest) * percent * 2 + 100) // 200  # rounds half up, in whole numbers
        return newest[max(1, rank) - 1]

    cut = find_cut(config, written)
    test_percent = round(test_fraction * 100)
    assert cut.eval_us == brute_force(round(eval_fraction * 100) + test_percent)
    assert cut.test_us == (brute_force(test_percent) if test_fraction else None)


def test_given_moments_are_utc_unless_they_say_otherwise():
    naive = datetime(1970, 1, 2)
    aware = datetime(1970, 1, 3, 2, tzinfo=timezone(timedelta(hours=2)))
    config = SplitConfig(method="temporal", eval_from=naive, test_from=aware)
    assert find_cut(config) == Cut(DAY_US, 2 * DAY_US)


EVENTS = st.lists(st.tuples(TIMES, st.booleans()), max_size=20)


def begin_of_newest(folder: Path, buckets: list[list[tuple[int, bool]]]) -> int | None:
    newest, earlier = (
        [
            write_and_map([time for time, is_newest in bucket if is_newest is wanted], folder)
            for bucket in buckets
        ]
        for wanted in (True, False)
    )
    return newest_span_begin(newest, earlier)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(buckets=st.lists(EVENTS, min_size=1, max_size=4))
def test_cut_misplaces_fewest_events(tmp_path: Path, buckets: list[list[tuple[int, bool]]]) -> None:
    events = [event for bucket in buckets for event in bucket]

    def misplaced(second: int) -> int:
        return sum((time // 1_000_000 < second) == is_newest for time, is_newest in events)

    seconds = {time // 1_000_000 for time, is_newest in events if is_newest}
    expected = None
    if seconds:
        best = min(seconds, key=lambda second: (misplaced(second), second))
        expected = min(
            time for time, is_newest in events if is_newest and time // 1_000_000 == best
        )
    assert begin_of_newest(tmp_path, buckets) == expected


def test_spans_that_do_not_overlap_are_cut_at_the_first_event(tmp_path: Path) -> None:
    day = 20_000 * DAY_US
    earlier = [(day + 7 * n, False) for n in range(50)]
    newest = [(day + 1_000 + 7 * n, True) for n in range(50)]
    # All events are in one second, so seconds do not separate the spans.
    assert begin_of_newest(tmp_path, [earlier, newest]) == day + 1_000
