"""Find the exact time of a temporal cut without holding all times in memory.

Each bucket counts its events per day and writes its times to disk in ascending order. Then the
events of one day are counted per second, and those of one second per microsecond.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt

from components import files
from components.interactions.buckets import new_path
from components.interactions.config import SplitConfig
from components.interactions.splits.assignment import Cut

_US_PER_S = 10**6
_S_PER_DAY = 86_400
_US_PER_DAY = _S_PER_DAY * _US_PER_S
_DTYPE = np.dtype("<i8")

Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SortedTimes:
    """The sorted times of a bucket on disk.

    Attributes:
        path: File of times in microseconds since 1970, as little-endian int64.
        by_day: Number of events by day since 1970, for days with events.
    """

    path: str
    by_day: Mapping[int, int]

    def of_day(self, day: int) -> Times:
        """Read the times of one day since 1970."""
        if day not in self.by_day:
            return np.array([], _DTYPE)
        before = sum(count for other, count in self.by_day.items() if other < day)
        with files.open_to_read(self.path) as stream:
            stream.seek(before * _DTYPE.itemsize)
            content = stream.read(self.by_day[day] * _DTYPE.itemsize)
        times: Times = np.frombuffer(content, _DTYPE)
        return times


@dataclass(frozen=True)
class SpanTimes:
    """The times of one bucket, separated into those of the newest span and of earlier spans."""

    newest: SortedTimes
    earlier: SortedTimes


def write_sorted_times(times: Times, folder: str) -> SortedTimes:
    """Write times in ascending order and count them by day."""
    path = new_path(folder)
    ordered = np.sort(times).astype(_DTYPE)
    files.write_bytes(path, ordered.tobytes())
    days, counts = np.unique(ordered // _US_PER_DAY, return_counts=True)
    return SortedTimes(path, dict(zip(days.tolist(), counts.tolist(), strict=True)))


def find_cut(
    config: SplitConfig, times: Sequence[SortedTimes], newest_span_us: int | None = None
) -> Cut:
    """Return the cut of a temporal split.

    With fractions, the newest `eval_fraction + test_fraction` of the events are held out, rounded
    to whole events and at least one. The cut is the time of the oldest of them; other events at
    that time are held out too.

    Args:
        config: Settings with the method `temporal`.
        times: The times of all events; not read if `config` has `eval_from`.
        newest_span_us: Result of `newest_span_begin`; required for `eval_from: newest_span`.
    """
    if isinstance(config.eval_from, str):
        if newest_span_us is None:
            raise ValueError("`eval_from: newest_span` needs the time at which that span begins")
        return Cut(newest_span_us)
    if config.eval_from is not None:
        test = None if config.test_from is None else _micros(config.test_from)
        return Cut(_micros(config.eval_from), test)
    total = sum(sum(bucket.by_day.values()) for bucket in times)
    later = _nth_newest(times, _num_newest(total, config.eval_fraction + config.test_fraction))
    if not config.test_fraction:
        return Cut(later)
    return Cut(later, _nth_newest(times, _num_newest(total, config.test_fraction)))


def newest_span_begin(times: Sequence[SpanTimes]) -> int | None:
    """Return the time at which the newest span begins, in microseconds since 1970.

    Spans overlap if events arrive late or clocks are wrong. If the newest span began at its first
    event, a single wrong clock could hold out years of events. If it began after the last event of
    earlier spans, a single wrong clock could leave no event to hold out. Instead, the function
    considers each second in which the newest span has an event. It counts the events on the wrong
    side: those of the newest span before that second, and those of earlier spans in or after it.
    It chooses the second with the fewest such events, or the earliest of several.

    One bucket's times of a day, and the counts by second, are in memory at a time.

    Args:
        times: The times of all events.

    Returns:
        The time of the newest span's first event in the chosen second, or None if the newest span
        has no event.
    """
    newest = [bucket.newest for bucket in times]
    earlier = [bucket.earlier for bucket in times]
    days = _beginnings(_by_day(newest), _by_day(earlier))
    if not days:
        return None
    # The best second has at most this many events on the wrong side. Each second of a day has at
    # least `misplaced - num_earlier`, so days above the limit are skipped.
    enough = min(day.misplaced for day in days)
    seconds = [
        (day.misplaced + second.misplaced, second.unit)
        for day in days
        if day.misplaced - day.num_earlier <= enough
        for second in _beginnings(
            _count_of_day(newest, day.unit, _second), _count_of_day(earlier, day.unit, _second)
        )
    ]
    _, second = min(seconds)
    day = second * _US_PER_S // _US_PER_DAY
    moments = np.concatenate([bucket.of_day(day) for bucket in newest])
    return int(moments[_second(moments) == second].min())


@dataclass(frozen=True)
class _Beginning:
    """A day or second that has events of the newest span, which may begin there.

    Attributes:
        unit: Number of the day or second since 1970.
        misplaced: Number of events on the wrong side if the newest span begins with this unit,
            minus the number of all events of earlier spans.
        num_earlier: Number of events of earlier spans in this unit.
    """

    unit: int
    misplaced: int
    num_earlier: int


def _beginnings(newest: Mapping[int, int], earlier: Mapping[int, int]) -> list[_Beginning]:
    found = []
    misplaced = 0
    for unit in sorted(newest.keys() | earlier.keys()):
        if unit in newest:
            found.append(_Beginning(unit, misplaced, earlier.get(unit, 0)))
        misplaced += newest.get(unit, 0) - earlier.get(unit, 0)
    return found


def _num_newest(total: int, share: float) -> int:
    # Round first, because the sum of two fractions is inexact in its last bits.
    return max(1, int(round(total * share, 6) + 0.5))


def _micros(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * _S_PER_DAY + since.seconds) * _US_PER_S + since.microseconds


def _second(moments: Times) -> Times:
    return moments // _US_PER_S


def _nth_newest(times: Sequence[SortedTimes], n: int) -> int:
    """Return the time of the n-th newest event, counted from 1."""
    day, n = _step_down(_by_day(times), n)
    start = day * _US_PER_DAY
    seconds = _count_of_day(times, day, lambda found: (found - start) // _US_PER_S)
    second, n = _step_down(seconds, n)
    start += second * _US_PER_S
    micros = _count_of_day(
        times, day, lambda found: (found - start)[(found >= start) & (found < start + _US_PER_S)]
    )
    micro, _ = _step_down(micros, n)
    return start + micro


def _step_down(counts: Mapping[int, int], n: int) -> tuple[int, int]:
    """Return the n-th highest value of counted values, and its rank among equal values."""
    for value in sorted(counts, reverse=True):
        if n <= counts[value]:
            return value, n
        n -= counts[value]
    raise ValueError("n is greater than the number of events")


def _by_day(times: Sequence[SortedTimes]) -> Counter[int]:
    days: Counter[int] = Counter()
    for bucket in times:
        days.update(bucket.by_day)
    return days


def _count_of_day(
    times: Sequence[SortedTimes], day: int, classify: Callable[[Times], Times]
) -> Counter[int]:
    """Count the events of a day by class; the times of one bucket are in memory at a time."""
    counts: Counter[int] = Counter()
    for bucket in times:
        if day in bucket.by_day:
            classes, found = np.unique(classify(bucket.of_day(day)), return_counts=True)
            counts.update(dict(zip(classes.tolist(), found.tolist(), strict=True)))
    return counts
