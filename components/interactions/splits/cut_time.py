"""Find the exact time of a temporal cut without holding all times in memory.

Each bucket writes its times to a file in ascending order. The files are mapped into memory, and
binary searches read only a few of their pages.
"""

import os
from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt

from components import files
from components.interactions.buckets import new_path
from components.interactions.config import SplitConfig
from components.interactions.splits.assignment import Cut

_US_PER_S = 10**6
_S_PER_DAY = 86_400
_DTYPE = np.dtype("<i8")

# Times in microseconds since 1970.
Times = npt.NDArray[np.int64]


def write_sorted_times(times: Times, folder: str) -> str:
    """Write times in ascending order to a new file, and return its path."""
    path = new_path(folder)
    files.write_bytes(path, np.sort(times).astype(_DTYPE).tobytes())
    return path


def map_sorted_times(path: str, folder: str) -> Times:
    """Return times from `write_sorted_times`; a remote file is first copied to a local folder."""
    if files.is_remote(path):
        local = os.path.join(folder, os.path.basename(path))
        files.copy(path, local)
        path = local
    if not os.path.getsize(path):
        return np.zeros(0, _DTYPE)  # an empty file cannot be mapped
    return np.memmap(path, _DTYPE, mode="r")


def find_cut(config: SplitConfig, times: Sequence[Times] = ()) -> Cut:
    """Return the cut of a temporal split, unless `eval_from` is `newest_span`.

    With fractions, the newest `eval_fraction + test_fraction` of the events are held out, rounded
    to whole events and at least one. The cut is the time of the oldest of them; other events at
    that time are held out too. `times` has the sorted times of all events, by bucket; they are not
    used if `config` has `eval_from`.
    """
    if isinstance(config.eval_from, datetime):
        test = None if config.test_from is None else _micros(config.test_from)
        return Cut(_micros(config.eval_from), test)
    later = _newest_share(times, config.eval_fraction + config.test_fraction)
    test = _newest_share(times, config.test_fraction) if config.test_fraction else None
    return Cut(later, test)


def newest_span_begin(newest: Sequence[Times], earlier: Sequence[Times]) -> int | None:
    """Return the time at which the newest span begins, in microseconds since 1970.

    It is the time of the newest span's first event in a second, or None if that span has no event.
    The second has the fewest events on the wrong side (those of the newest span before it, and
    those of earlier spans in or after it), and is the earliest of several. A single wrong clock or
    late event therefore cannot move the cut far.

    `newest` and `earlier` have the sorted times of the newest and of the earlier spans, by bucket.
    """
    seconds = [np.unique(times // _US_PER_S) for times in newest]
    begins = np.unique(np.concatenate(seconds)) * _US_PER_S
    if not len(begins):
        return None
    misplaced = np.zeros(len(begins), np.int64)
    for times in newest:
        misplaced += np.searchsorted(times, begins)
    for times in earlier:
        misplaced += len(times) - np.searchsorted(times, begins)
    begin = begins[np.argmin(misplaced)]
    later = [times[np.searchsorted(times, begin) :] for times in newest]
    return min(int(times[0]) for times in later if len(times))


def _newest_share(times: Sequence[Times], share: float) -> int:
    """Return the time of the oldest of the newest events that make up a share of all, at least one.

    This is the last time at or after which there are enough events.
    """
    # Round first, because the sum of two fractions is inexact in its last bits.
    enough = max(1, int(round(sum(map(len, times)) * share, 6) + 0.5))
    low = min(int(bucket[0]) for bucket in times if len(bucket))
    high = max(int(bucket[-1]) for bucket in times if len(bucket))
    while low < high:
        middle = (low + high + 1) // 2
        if sum(len(bucket) - int(np.searchsorted(bucket, middle)) for bucket in times) >= enough:
            low = middle
        else:
            high = middle - 1
    return low


def _micros(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * _S_PER_DAY + since.seconds) * _US_PER_S + since.microseconds
