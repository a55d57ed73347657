"""The times between which candidates are available: published and not yet removed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.features.spec import AVAILABLE_FROM_KEY, AVAILABLE_UNTIL_KEY, MISSING_TIME

Ints = npt.NDArray[np.int64]
_NEVER_ENDS = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Availability:
    """When candidates are available, in epoch seconds: from `start` until before `end`.

    Both are `[num_candidates]` int64, arrays or tensors. A candidate whose end is not after its
    start is never available.
    """

    start: Any
    end: Any

    @classmethod
    def of(cls, columns: Mapping[str, Any], num_candidates: int) -> "Availability":
        """Return the availability from columns by key, in which `MISSING_TIME` is an open end."""
        missing = np.full(num_candidates, MISSING_TIME)
        start, end = (
            np.asarray(columns.get(key, missing), np.int64)
            for key in (AVAILABLE_FROM_KEY, AVAILABLE_UNTIL_KEY)
        )
        return cls(start, np.maximum(start, np.where(end == MISSING_TIME, _NEVER_ENDS, end)))

    def take(self, candidates: Any) -> "Availability":
        """Return that of some candidates `[…]`, as tensors."""
        return Availability(tf.gather(self.start, candidates), tf.gather(self.end, candidates))

    def at(self, times: Any) -> Any:
        """Return a mask of the candidates that are available at `times` `[…, 1]`."""
        return (self.start <= times) & (times < self.end)

    def between(self, first: Any, last: Any) -> Any:
        """Return a mask of those that are available at some time from `first` to `last`."""
        return (self.start <= last) & (first < self.end)

    def number_at(self, times: Ints) -> Ints:
        """Return the number of candidates that are available at each time `[n]`."""
        started, ended = (
            np.searchsorted(np.sort(of), times, side="right") for of in (self.start, self.end)
        )
        return started - ended
