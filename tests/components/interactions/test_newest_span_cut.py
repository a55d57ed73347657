from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.interactions.splits.cut_time import SpanTimes, newest_span_begin, write_sorted_times

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
TIMES = st.builds(
    lambda day, second, micro: day * DAY_US + second * SECOND_US + micro,
    st.sampled_from([-1, 0, 1, 12_345]),
    st.sampled_from([0, 1, 2, 86_399]),
    st.sampled_from([0, 999_999]),
)
EVENTS = st.lists(st.tuples(TIMES, st.booleans()), max_size=20)


def written(folder: Path, buckets: list[list[tuple[int, bool]]]) -> list[SpanTimes]:
    return [
        SpanTimes(
            *(
                write_sorted_times(
                    np.array([time for time, is_newest in bucket if is_newest is wanted], np.int64),
                    str(folder),
                )
                for wanted in (True, False)
            )
        )
        for bucket in buckets
    ]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(buckets=st.lists(EVENTS, min_size=1, max_size=4))
def test_the_fewest_events_lie_on_the_wrong_side(
    tmp_path: Path, buckets: list[list[tuple[int, bool]]]
) -> None:
    events = [event for bucket in buckets for event in bucket]

    def misplaced(second: int) -> int:
        return sum((time // SECOND_US < second) == is_newest for time, is_newest in events)

    seconds = {time // SECOND_US for time, is_newest in events if is_newest}
    expected = None
    if seconds:
        best = min(seconds, key=lambda second: (misplaced(second), second))
        expected = min(
            time for time, is_newest in events if is_newest and time // SECOND_US == best
        )
    assert newest_span_begin(written(tmp_path, buckets)) == expected


def test_spans_that_do_not_overlap_are_cut_at_the_first_event(tmp_path: Path) -> None:
    day = 20_000 * DAY_US
    earlier = [(day + 7 * n, False) for n in range(50)]
    newest = [(day + 1_000 + 7 * n, True) for n in range(50)]
    # All in one second: the earlier ones in it cannot be told from the newest by seconds.
    assert newest_span_begin(written(tmp_path, [earlier, newest])) == day + 1_000
