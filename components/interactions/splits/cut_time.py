"""Finds the exact moment of a temporal cut without holding all times in memory.

Each bucket counts its events by day and leaves its times sorted on disk; the day of the cut is then
read again and counted by second, and the second by microsecond.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt
from apache_beam.io.filesystems import FileSystems

from components.interactions.buckets import new_path
from components.interactions.config import SplitConfig
from components.interactions.splits.assignment import Cut

US_PER_S = 10**6
_S_PER_DAY = 86_400
US_PER_DAY = _S_PER_DAY * US_PER_S
_DTYPE = np.dtype("<i8")

Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SortedTimes:
    """The times of a bucket on disk, sorted.

    Attributes:
        path: Little-endian int64 microseconds.
        by_day: Events on each day since 1970 that has some.
    """

    path: str
    by_day: Mapping[int, int]

    def of_day(self, day: int) -> Times:
        """Reads the times of one day."""
        if day not in self.by_day:
            return np.array([], _DTYPE)
        before = sum(count for other, count in self.by_day.items() if other < day)
        with FileSystems.open(self.path) as stream:
            stream.seek(before * _DTYPE.itemsize)
            content = stream.read(self.by_day[day] * _DTYPE.itemsize)
        times: Times = np.frombuffer(content, _DTYPE)
        return times


def write_sorted_times(times: Times, folder: str) -> SortedTimes:
    """Writes times in ascending order and counts them by day."""
    path = new_path(folder)
    ordered = np.sort(times).astype(_DTYPE)
    with FileSystems.create(path) as stream:
        stream.write(ordered.tobytes())
    days, counts = np.unique(ordered // US_PER_DAY, return_counts=True)
    return SortedTimes(path, dict(zip(days.tolist(), counts.tolist(), strict=True)))


def find_cut(
    config: SplitConfig, times: Sequence[SortedTimes], newest_span_us: int | None = None
) -> Cut:
    """Returns where a temporal split cuts.

    With fractions, the newest `eval_fraction + test_fraction` of n events, rounded to whole events
    and at least one, begin at the cut; events at the same moment as the oldest of them join them.

    Args:
        config: Of method temporal.
        times: Of all events; not read where the config gives the moments.
        newest_span_us: From `newest_span_cut`; needed by `eval_from: newest_span`.
    """
    if isinstance(config.eval_from, str):
        if newest_span_us is None:
            raise ValueError("`eval_from: newest_span` needs the moment at which that begins")
        return Cut(newest_span_us)
    if config.eval_from is not None:
        test = None if config.test_from is None else _micros(config.test_from)
        return Cut(_micros(config.eval_from), test)
    total = sum(sum(bucket.by_day.values()) for bucket in times)
    later = _newest_moment(times, _rank(total, config.eval_fraction + config.test_fraction))
    if not config.test_fraction:
        return Cut(later)
    return Cut(later, _newest_moment(times, _rank(total, config.test_fraction)))


def _rank(total: int, share: float) -> int:
    # The sum of two fractions is off in its last bits: 0.1 + 0.2 of 10 events are 3.
    return max(1, int(round(total * share, 6) + 0.5))


def _micros(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * _S_PER_DAY + since.seconds) * US_PER_S + since.microseconds


def _newest_moment(times: Sequence[SortedTimes], rank: int) -> int:
    """Returns the time of the event that is `rank`-th from the newest, from 1."""
    days: Counter[int] = Counter()
    for bucket in times:
        days.update(bucket.by_day)
    day, rank = _step_down(days, rank)
    start = day * US_PER_DAY
    seconds = count_of_day(times, day, lambda found: (found - start) // US_PER_S)
    second, rank = _step_down(seconds, rank)
    start += second * US_PER_S
    micros = count_of_day(
        times, day, lambda found: (found - start)[(found >= start) & (found < start + US_PER_S)]
    )
    micro, _ = _step_down(micros, rank)
    return start + micro


def _step_down(counts: Mapping[int, int], rank: int) -> tuple[int, int]:
    """Returns the class that holds the rank from the highest class, and the rank in it."""
    for value in sorted(counts, reverse=True):
        if rank <= counts[value]:
            return value, rank
        rank -= counts[value]
    raise ValueError("rank is beyond the number of events")


def count_of_day(
    times: Sequence[SortedTimes], day: int, classify: Callable[[Times], Times]
) -> Counter[int]:
    """Counts the events of a day by class, with the times of one bucket in memory.

    Args:
        times: Of all buckets.
        day: Since 1970.
        classify: Returns the class of each time, or of those that matter.
    """
    counts: Counter[int] = Counter()
    for bucket in times:
        if day in bucket.by_day:
            classes, found = np.unique(classify(bucket.of_day(day)), return_counts=True)
            counts.update(dict(zip(classes.tolist(), found.tolist(), strict=True)))
    return counts


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
