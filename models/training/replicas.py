"""What a step knows of the devices it is taken on together.

On one device every function here returns what it was given. On several, each device (replica) has
some rows of the batch, and a step must give what one device would have made of all rows.
"""

from typing import Any

import tensorflow as tf

# Far from every other offset of a step's seed.
_SEED_STRIDE = 100_003


def gathered(indices: tf.Tensor) -> tf.Tensor:
    """Returns the `[n]` indices of all replicas, one after the other in the order of the rows."""
    context = _context()
    if context is None:
        return indices
    # Gathering nothing at all crashes TensorFlow 2.16 where replicas are processes.
    everything = context.all_gather(tf.concat([indices, [-1]], axis=0), axis=0)
    return tf.boolean_mask(everything, everything >= 0)


def never_empty(gradient: Any) -> Any:
    """Returns a gradient that replicas can sum: a sparse one gets a row of zeros.

    Sparse gradients are summed by gathering their rows; see `gathered`. The row is one that the
    gradient has already, where it has one: an optimiser that moves used rows moves no other.
    """
    if _context() is None or not isinstance(gradient, tf.IndexedSlices):
        return gradient
    nothing = tf.zeros(tf.concat([[1], tf.shape(gradient.values)[1:]], 0), gradient.values.dtype)
    row = tf.concat([gradient.indices, tf.zeros([1], gradient.indices.dtype)], axis=0)[:1]
    return tf.IndexedSlices(
        tf.concat([gradient.values, nothing], axis=0),
        tf.concat([gradient.indices, row], axis=0),
        gradient.dense_shape,
    )


def sum_of_all(weight: tf.Tensor) -> tf.Tensor:
    """Returns the sum of all replicas' weights."""
    context = _context()
    return weight if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, weight)


def share_of_all(weight: tf.Tensor) -> tf.Tensor | float:
    """Returns which share of all replicas' weight this one has.

    Replicas' gradients are summed. The mean loss of a replica's events times its share of the
    events sums up to the mean over all events; without this, an event in a replica with few would
    count more.
    """
    if _context() is None:
        return 1.0
    return tf.math.divide_no_nan(weight, sum_of_all(weight))


def seed_of_rows(seed: tf.Tensor) -> tf.Tensor:
    """Returns a seed for what is drawn for each row: replicas have other rows at the same places.

    What is drawn once for the whole step, such as negatives, takes `seed` itself.
    """
    context = _context()
    if context is None:
        return seed
    replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
    return seed + tf.stack([_SEED_STRIDE * replica, 0])


def _context() -> Any:
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context
