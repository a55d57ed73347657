"""The weight of an event, in the loss and in the metrics, by its type and its rating."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import tensorflow as tf

from models.features.spec import EVENT_TYPE_KEY, RATING_KEY, EventWeights


def weight_parsing(weights: EventWeights) -> dict[str, tf.io.RaggedFeature]:
    """Return the parsing spec of the columns that determine the weights, raw or transformed."""
    kinds = {EVENT_TYPE_KEY: tf.string, RATING_KEY: tf.float32}
    return {key: tf.io.RaggedFeature(kinds[key], row_splits_dtype=tf.int64) for key in weights.keys}


def event_weights(columns: Mapping[str, tf.RaggedTensor], weights: EventWeights) -> tf.Tensor:
    """Return the weight of each event of parsed timelines, float32 `[num_events]`.

    `columns` has those of `weight_parsing`, of which there must be one.
    """
    total: tf.Tensor | float = 1.0
    if EVENT_TYPE_KEY in weights.keys:
        total *= _type_weights(columns[EVENT_TYPE_KEY].values, weights)
    if RATING_KEY in weights.keys:
        total *= _rating_weights(columns[RATING_KEY].values, weights)
    return total


def _type_weights(types: tf.Tensor, weights: EventWeights) -> tf.Tensor:
    found = tf.fill(tf.shape(types), np.float32(weights.other_types))
    for name, weight in weights.types.items():
        found = tf.where(types == name, tf.constant(weight, tf.float32), found)
    return found


def _rating_weights(ratings: tf.Tensor, weights: EventWeights) -> tf.Tensor:
    known = sorted((np.float32(key), np.float32(value)) for key, value in weights.ratings.items())
    found = tf.fill(tf.shape(ratings), known[0][1])
    for (left, low), (right, high) in pairwise(known):
        found += tf.clip_by_value((ratings - left) / (right - left), 0.0, 1.0) * (high - low)
    return found
