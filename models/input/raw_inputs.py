"""The inputs of the exported signatures, as a client sends them, and their defaults."""

from collections.abc import Mapping

import tensorflow as tf

from models.features.spec import (
    AVAILABLE_FROM_KEY,
    HISTORY_KEY,
    HISTORY_TYPES_KEY,
    LARGEST_NUMBER,
    MISSING_TIME,
    TIME_KEY,
    FeatureConfig,
    FeatureSpec,
)


def query_inputs(spec: FeatureSpec) -> dict[str, tf.TensorSpec]:
    """Return the inputs that describe a query: ID, features, context, history, types, time."""
    lists = (HISTORY_KEY, HISTORY_TYPES_KEY) if spec.columns.event_types else (HISTORY_KEY,)
    times = (TIME_KEY,) if spec.availability else ()
    return {
        spec.query_id: tf.TensorSpec([None], tf.string, spec.query_id),
        **{name: _input(name, feature) for name, feature in spec.request_features.items()},
        **{name: tf.TensorSpec([None, None], tf.string, name) for name in lists},
        **{name: tf.TensorSpec([None], tf.int64, name) for name in times},
    }


def candidate_inputs(spec: FeatureSpec) -> dict[str, tf.TensorSpec]:
    """Return the inputs that describe a candidate: ID, features, and when it is available from."""
    times = spec.availability
    age = {name: times[name] for name in (AVAILABLE_FROM_KEY,) if name in times}
    return _of_candidates(spec, {**spec.candidate_features, **age})


def catalogue_inputs(spec: FeatureSpec) -> dict[str, tf.TensorSpec]:
    """Return `candidate_inputs` and the features that the model does not learn from."""
    return _of_candidates(spec, spec.catalogue_features)


def to_sparse(values: tf.Tensor) -> tf.SparseTensor:
    """Convert `[batch]` or `[batch, n]` to a sparse `[batch, n]` without missing values.

    Missing values are empty strings, NaN, the numbers that ingestion rejects as too large, and
    `MISSING_TIME`.
    """
    if values.shape.rank == 1:
        values = values[:, None]
    if values.dtype == tf.float32:
        present = tf.abs(values) <= LARGEST_NUMBER
    else:
        present = values != missing_value(values.dtype)
    positions = tf.where(present)
    shape = tf.shape(values, out_type=tf.int64)
    return tf.SparseTensor(positions, tf.gather_nd(values, positions), shape)


def same_batch(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Repeat inputs that have only one row for the whole batch.

    If a client omits an input, the server uses its default, which has one row.
    """
    sizes = tf.stack([tf.shape(values)[0] for values in inputs.values()])
    # In an empty batch, only the defaults have a row.
    batch = tf.where(tf.reduce_any(sizes == 0), 0, tf.reduce_max(sizes))
    return {
        name: tf.broadcast_to(values, tf.concat([[batch], tf.shape(values)[1:]], axis=0))
        if values.shape.rank
        else values
        for name, values in inputs.items()
    }


def default_value(tensor: tf.TensorSpec) -> tf.Tensor:
    """Return the default of an input: one row of missing values."""
    if tensor.shape.rank == 2:
        return tf.zeros([1, 0], tensor.dtype)
    return tf.constant([missing_value(tensor.dtype)], tensor.dtype)


def missing_value(dtype: tf.DType) -> str | float | int | bool:
    """Return the value of an input that is not given."""
    if dtype == tf.int64:
        return MISSING_TIME
    if dtype == tf.bool:
        return False
    return "" if dtype == tf.string else float("nan")


def _of_candidates(
    spec: FeatureSpec, features: Mapping[str, FeatureConfig]
) -> dict[str, tf.TensorSpec]:
    return {
        spec.candidate_id: tf.TensorSpec([None], tf.string, spec.candidate_id),
        **{name: _input(name, feature) for name, feature in features.items()},
    }


def _input(name: str, feature: FeatureConfig) -> tf.TensorSpec:
    shape = [None, None] if feature.is_list else [None]
    return tf.TensorSpec(shape, tf.as_dtype(feature.dtype), name)
