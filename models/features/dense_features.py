"""Transformed features to the padded tensors that the towers take.

Training and serving pass through the same function, so a row means the same in both.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import tensorflow as tf

from models.features.spec import FeatureConfig

MISSING_INDEX = -1

Values: TypeAlias = Any  # of tf.SparseTensor | tf.RaggedTensor


def to_ragged(values: tf.SparseTensor) -> tf.RaggedTensor:
    """Returns `[batch, (n)]`: values keep their order, holes in a row are closed."""
    return tf.RaggedTensor.from_value_rowids(
        values.values, values.indices[:, 0], nrows=values.dense_shape[0], validate=False
    )


def pad_indices(values: Values, newest: int | None = None) -> tf.Tensor:
    """Returns `[batch, n]` int32 with `MISSING_INDEX` where a row is shorter.

    Values keep their order and move together: holes in a row are closed.

    Args:
        values: `[batch, m]` indices.
        newest: Keep only this many from each row's end.
    """
    ragged = values if isinstance(values, tf.RaggedTensor) else to_ragged(values)
    ragged = tf.cast(ragged, tf.int32)
    if newest is not None:
        # Before padding: in the padded tensor the last columns of a short row are empty.
        ragged = ragged[:, -newest:]
    return ragged.to_tensor(MISSING_INDEX)


def dense_features(
    transformed: Mapping[str, Values], features: Mapping[str, FeatureConfig]
) -> dict[str, tf.Tensor]:
    """Returns the features by name: `[batch, n]` int32 indices, or `[batch, 1]` float32.

    A missing index is `MISSING_INDEX`, a missing number NaN.
    """
    dense = {}
    for name, feature in features.items():
        if is_index(feature):
            dense[name] = pad_indices(transformed[name])
        else:
            dense[name] = _first_number(transformed[name])
    return dense


def _first_number(values: Values) -> tf.Tensor:
    if isinstance(values, tf.RaggedTensor):
        padded = values.to_tensor(float("nan"))
    else:
        padded = tf.sparse.to_dense(values, default_value=float("nan"))
    # A batch in which nobody has a value has zero columns.
    return tf.pad(padded, [[0, 0], [0, 1]], constant_values=float("nan"))[:, :1]


def is_index(feature: FeatureConfig) -> bool:
    """Whether the transformed feature is an index (else a normalised number)."""
    return feature.kind != "numeric" or feature.buckets is not None


def parse_spec(
    names_of_indices: Iterable[str], features: Mapping[str, FeatureConfig]
) -> dict[str, tf.io.VarLenFeature]:
    """Returns how to parse transformed Examples: the named index columns, and the features."""
    spec = {name: tf.io.VarLenFeature(tf.int64) for name in names_of_indices}
    for name, feature in features.items():
        spec[name] = tf.io.VarLenFeature(tf.int64 if is_index(feature) else tf.float32)
    return spec
