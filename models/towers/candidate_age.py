"""The influence of a candidate's age at the time of a query on its score."""

import tensorflow as tf
import tf_keras

from models.features.spec import MISSING_TIME

_DAY_S = 86_400
# Days in which the parts of the influence fall to 1/e.
_DECAYS = (1.0, 3.0, 9.0, 27.0, 81.0)
# The product of two exponentials of it is a float32.
_LARGEST_EXPONENT = 40.0
# The coordinates of candidates are this small, and those of queries as large, so that they do not
# change the similarity of two candidates up to ten days after the reference.
_SCALE = 2.0**-20


class CandidateAge(tf_keras.layers.Layer):
    """Layer with coordinates of queries and of candidates whose product is a function of the age.

    The age is the time of the query less that from which the candidate is available. The function
    is a sum of exponential decays with learned weights. A decay is a product of a factor of the
    query's time and one of the candidate's, so the score remains a dot product, which any index
    supports, and does not change with time.

    Both factors are relative to `reference`, in epoch seconds: a decay of one day is exact for 40
    days before and after it, that of three days for three times as long. Farther away, it has the
    same value for all candidates.

    Example:
        age = CandidateAge(reference=1_700_000_000)
        scores = tf.matmul(age.of_queries(times), age.of_candidates(starts), transpose_b=True)
    """

    def __init__(self, reference: int) -> None:
        super().__init__(name="candidate_age")
        self._reference = reference
        self._weights = self.add_weight("weights", [len(_DECAYS)], initializer="zeros")

    def of_queries(self, times: tf.Tensor) -> tf.Tensor:
        """Return coordinates `[batch, n]` of epoch seconds `[batch]`; 0 without a time."""
        return self._weights * self._factors(times, -1.0) / _SCALE

    def of_candidates(self, starts: tf.Tensor) -> tf.Tensor:
        """Return coordinates `[batch, n]` of epoch seconds `[batch]`; 0 for `MISSING_TIME`."""
        return self._factors(starts, 1.0) * _SCALE

    def _factors(self, times: tf.Tensor, sign: float) -> tf.Tensor:
        is_given = tf.cast(times != MISSING_TIME, tf.float32)[:, None]
        # The difference of int64 is exact.
        days = tf.cast(times - self._reference, tf.float32)[:, None] / _DAY_S
        exponents = sign * days / tf.constant(_DECAYS)
        limited = tf.clip_by_value(exponents, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
        return tf.exp(limited) * is_given
