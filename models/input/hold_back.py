"""Hold back the newest training events, which the ranker learns from, from the retriever."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.errors import TooFewEventsError


@dataclass(frozen=True)
class HoldBack:
    """A rule that holds back the newest events of timelines, which are sorted by time.

    It imitates the split of the evaluation, because the ranker must learn from queries that
    resemble those that it will answer.

    Attributes:
        share: Share of the events to hold back, rounded up in each timeline if there is no `cut_s`.
        cut_s: Time of the first event that is held back, for all timelines, in epoch seconds; None
            if the newest events of each timeline are held back.
    """

    share: float
    cut_s: int | None = None

    @classmethod
    def before_time(cls, times: npt.NDArray[np.int64], share: float) -> "HoldBack":
        """Return the rule with the time that holds back about `share` of all events.

        Raises:
            TooFewEventsError: All events have the same time.
        """
        ascending = np.sort(times)
        cut_s = int(ascending[int(len(times) * (1.0 - share))]) if len(times) else 0
        if not len(times) or cut_s == ascending[0]:
            raise TooFewEventsError(
                "the ranker learns from the newest training events, and the retriever from those "
                "before them, but no event is older than the others; turn the ranker off with "
                "`ranking.enabled: false`"
            )
        return cls(share, cut_s)

    def num_kept(self, times: tf.RaggedTensor) -> tf.Tensor:
        """Return the number of events of each timeline that are not held back, `[batch]` int64.

        `times` `[batch, (events)]` are epoch seconds in ascending order.
        """
        if self.cut_s is not None:
            return tf.reduce_sum(tf.cast(times < self.cut_s, tf.int64), axis=1)
        lengths = times.row_lengths()
        held_back = tf.math.ceil(self.share * tf.cast(lengths, tf.float32))
        return lengths - tf.cast(held_back, tf.int64)
