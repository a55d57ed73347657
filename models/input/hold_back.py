"""Hold back training events, which the ranker learns from, from the retriever."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.errors import TooFewEventsError

SplitMethod = Literal["random", "temporal", "leave_last_out"]
_HASH_BUCKETS = 1_000_000


@dataclass(frozen=True)
class HoldBack:
    """A rule that holds back events of timelines, which are sorted by time.

    It imitates the split of the evaluation, because the ranker must learn from queries that
    resemble those that it will answer.

    Attributes:
        split: `split.method`. temporal: the newest events of all timelines. leave_last_out: the
            newest events of each timeline. random: any events; those of a timeline with the same
            candidate together.
        share: Share of the events to hold back; with leave_last_out rounded up in each timeline.
        cut_s: temporal: time of the first event that is held back, in epoch seconds.
    """

    split: SplitMethod
    share: float
    cut_s: int | None = None

    @classmethod
    def of(cls, split: SplitMethod, share: float, times: npt.NDArray[np.int64]) -> "HoldBack":
        """Return the rule that holds back about `share` of the events, whose `times` are given.

        Raises:
            TooFewEventsError: temporal: all events have the same time.
        """
        if split != "temporal":
            return cls(split, share)
        ascending = np.sort(times)
        cut_s = int(ascending[int(len(times) * (1.0 - share))]) if len(times) else 0
        if not len(times) or cut_s == ascending[0]:
            raise TooFewEventsError(
                "the ranker learns from the newest training events, and the retriever from those "
                "before them, but no event is older than the others; turn the ranker off with "
                "`ranking.enabled: false`"
            )
        return cls(split, share, cut_s)

    def is_kept(self, times: tf.RaggedTensor, candidates: tf.RaggedTensor) -> tf.RaggedTensor:
        """Return a mask of the events that are not held back, `[batch, (events)]`.

        `times` `[batch, (events)]` are epoch seconds in ascending order, and `candidates` are the
        indices of the candidates.
        """
        if self.cut_s is not None:
            return times.with_values(times.values < self.cut_s)
        lengths = times.row_lengths()
        if self.split == "leave_last_out":
            held_back = tf.math.ceil(self.share * tf.cast(lengths, tf.float32))
            nth = tf.ragged.range(lengths).values
            kept = tf.gather(lengths - tf.cast(held_back, tf.int64), times.value_rowids())
            return times.with_values(nth < kept)
        # Timelines have no ID here, so the sum of their candidates is used.
        timeline = tf.gather(tf.reduce_sum(candidates, axis=1), candidates.value_rowids())
        numbers = [tf.strings.as_string(of) for of in (candidates.values, timeline)]
        keys = tf.strings.join(numbers, " ")
        buckets = tf.strings.to_hash_bucket_fast(keys, _HASH_BUCKETS)
        return times.with_values(buckets >= int(self.share * _HASH_BUCKETS))
