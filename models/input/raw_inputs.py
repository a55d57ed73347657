"""Raw strings and numbers as a client sends them: tensors, defaults, the way into Transform."""

from collections.abc import Mapping

import tensorflow as tf

from models.features.spec import HISTORY_KEY, FeatureConfig, FeatureSpec


def query_inputs(spec: FeatureSpec) -> dict[str, tf.TensorSpec]:
    """Returns the inputs that describe a query: id, features, history."""
    return {
        spec.query_id: tf.TensorSpec([None], tf.string, spec.query_id),
        **{name: _input(name, feature) for name, feature in spec.query_features.items()},
        HISTORY_KEY: tf.TensorSpec([None, None], tf.string, HISTORY_KEY),
    }


def candidate_inputs(spec: FeatureSpec) -> dict[str, tf.TensorSpec]:
    """Returns the inputs that describe a candidate: id and features."""
    return {
        spec.candidate_id: tf.TensorSpec([None], tf.string, spec.candidate_id),
        **{name: _input(name, feature) for name, feature in spec.candidate_features.items()},
    }


def to_sparse(values: tf.Tensor) -> tf.SparseTensor:
    """Returns `[batch]` or `[batch, n]` as `[batch, n]` without missing values.

    Missing is "" for a string and NaN for a number.
    """
    if values.shape.rank == 1:
        values = values[:, None]
    present = values != "" if values.dtype == tf.string else tf.math.is_finite(values)
    places = tf.where(present)
    return tf.SparseTensor(
        places, tf.gather_nd(values, places), tf.shape(values, out_type=tf.int64)
    )


def same_batch(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Repeats inputs of one row for the whole batch.

    A client leaves out what it does not know, and the server's default for it has one row.
    """
    batch = tf.reduce_max(tf.stack([tf.shape(values)[0] for values in inputs.values()]))
    # A batch of zero rows stays one: its only other member is a default.
    batch = tf.where(
        tf.reduce_any(tf.stack([tf.shape(values)[0] == 0 for values in inputs.values()])), 0, batch
    )
    return {
        name: tf.broadcast_to(values, tf.concat([[batch], tf.shape(values)[1:]], axis=0))
        if values.shape.rank
        else values
        for name, values in inputs.items()
    }


def default_value(tensor: tf.TensorSpec) -> tf.Tensor:
    """Returns one row that says nothing: no value, no history."""
    if tensor.shape.rank == 2:
        return tf.zeros([1, 0], tensor.dtype)
    return tf.constant([""] if tensor.dtype == tf.string else [float("nan")], tensor.dtype)


def _input(name: str, feature: FeatureConfig) -> tf.TensorSpec:
    if feature.kind == "numeric":
        return tf.TensorSpec([None], tf.float32, name)
    return tf.TensorSpec([None, None] if feature.separator else [None], tf.string, name)
