"""How much each event counts in the loss: by what was done, or by its rating."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from models.features.spec import EVENT_TYPE_KEY, RATING_KEY, ColumnsConfig

if TYPE_CHECKING:
    import tensorflow as tf

EVENT_WEIGHT_KEY = "event_weight"


def weight_source(columns: ColumnsConfig, weights: Mapping[str, float]) -> str | None:
    """Returns the key of Examples that decides; None: every event counts as one.

    Raises:
        ValueError: There are weights, but no column for them, or a key is no rating.
    """
    if not weights:
        return None
    if columns.event_type is not None:
        return EVENT_TYPE_KEY
    if columns.rating is None:
        raise ValueError(
            "`training.event_weights` needs `events.event_type` or `events.rating` to decide by"
        )
    for value in weights:
        try:
            float(value)
        except ValueError:
            raise ValueError(
                f"`training.event_weights` by `events.rating` must have numbers as keys, got "
                f"{value!r}"
            ) from None
    return RATING_KEY


def event_weights(values: tf.Tensor, weights: Mapping[str, float]) -> tf.Tensor:
    """Returns the weight of each event, of the shape of `values`, float32.

    Args:
        values: Event types, strings, of which those not named weigh 1; or ratings, float32: between
            two named ratings the weight is interpolated, beyond them it is that of the nearest.
        weights: By event type or rating.
    """
    # The configuration needs `weight_source` in a process that shall not wait for TensorFlow.
    import tensorflow as tf

    if values.dtype == tf.string:
        found = tf.ones(tf.shape(values))
        for name, weight in weights.items():
            found = tf.where(values == name, tf.constant(weight, tf.float32), found)
        return found
    known = sorted((float(rating), weight) for rating, weight in weights.items())
    ratings = np.array([rating for rating, _ in known], np.float32)
    at = np.array([weight for _, weight in known], np.float32)
    found = tf.fill(tf.shape(values), at[0])
    for left, right, low, high in zip(ratings, ratings[1:], at, at[1:], strict=False):
        share = tf.clip_by_value((values - left) / (right - left), 0.0, 1.0)
        found += share * (high - low)
    return found
