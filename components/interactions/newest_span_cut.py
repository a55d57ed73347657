"""Finds the moment at which the newest span begins where spans are numbers.

Spans overlap: an event comes late, a clock is wrong. Cut at the first event of the newest span, one
wrong clock would hold out years; cut after the last event of the earlier spans, one would leave
nothing to be held out. So the cut is where the fewest events lie on the wrong side of it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.interactions.cut_time import (
    US_PER_DAY,
    US_PER_S,
    SortedTimes,
    Times,
    count_of_day,
)


@dataclass(frozen=True)
class SpanTimes:
    """The times of one bucket.

    Attributes:
        newest: Of the events of the newest span.
        earlier: Of all others.
    """

    newest: SortedTimes
    earlier: SortedTimes


def find_newest_span(times: Sequence[SpanTimes]) -> int | None:
    """Returns the moment, in microseconds since 1970, at which the newest span begins.

    Among the seconds in which the newest span has an event it is the one with the fewest events on
    the wrong side, those of the newest span before it and of the earlier ones from it on; the
    earliest of several. Of that second it is the first moment of the newest span.

    Memory holds the seconds of a day, and a bucket's times of it.

    Args:
        times: Of all events.

    Returns:
        The moment; None: the newest span has no event.
    """
    newest = [bucket.newest for bucket in times]
    earlier = [bucket.earlier for bucket in times]
    days = _beginnings(_total(newest), _total(earlier))
    if not days:
        return None
    # What the first second of a day has at most, and any second of it at least.
    enough = min(day.misplaced for day in days)
    seconds = [
        (day.misplaced + second.misplaced, second.place)
        for day in days
        if day.misplaced - day.num_earlier <= enough
        for second in _beginnings(
            count_of_day(newest, day.place, _second), count_of_day(earlier, day.place, _second)
        )
    ]
    _, second = min(seconds)
    day = second * US_PER_S // US_PER_DAY
    moments = np.concatenate([bucket.of_day(day) for bucket in newest])
    return int(moments[_second(moments) == second].min())


@dataclass(frozen=True)
class _Beginning:
    """A day or second in which the newest span has an event.

    Attributes:
        place: Number of the day or second since 1970.
        misplaced: Events on the wrong side of its beginning, less those of the earlier spans.
        num_earlier: Events of the earlier spans in it.
    """

    place: int
    misplaced: int
    num_earlier: int


def _beginnings(newest: Mapping[int, int], earlier: Mapping[int, int]) -> list[_Beginning]:
    found = []
    misplaced = 0
    for place in sorted(newest.keys() | earlier.keys()):
        if place in newest:
            found.append(_Beginning(place, misplaced, earlier.get(place, 0)))
        misplaced += newest.get(place, 0) - earlier.get(place, 0)
    return found


def _total(times: Sequence[SortedTimes]) -> Counter[int]:
    days: Counter[int] = Counter()
    for bucket in times:
        days.update(bucket.by_day)
    return days


def _second(moments: Times) -> Times:
    return moments // US_PER_S
