"""Conversion of transformed features to the padded tensors that the towers read.

Training and serving share these functions, so both give the towers the same tensors.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.features.spec import FeatureConfig, FeatureSpec

MISSING_INDEX = -1
_ROWS_PER_BLOCK = 65_536

Values: TypeAlias = Any  # tf.SparseTensor | tf.RaggedTensor


def to_ragged(values: tf.SparseTensor) -> tf.RaggedTensor:
    """Return the values of each sparse row without gaps, `[batch, (n)]`."""
    return tf.RaggedTensor.from_value_rowids(
        values.values, values.indices[:, 0], nrows=values.dense_shape[0], validate=False
    )


def pad_indices(values: Values, newest: int | None = None) -> tf.Tensor:
    """Return the last `newest` indices per row, `[batch, n]` int32, padded at the end."""
    ragged = values if isinstance(values, tf.RaggedTensor) else to_ragged(values)
    ragged = tf.cast(ragged, tf.int32)
    if newest is not None:
        # Slice before padding, because the last columns of a short padded row are empty.
        ragged = ragged[:, -newest:]
    return ragged.to_tensor(MISSING_INDEX)


def dense_features(
    transformed: Mapping[str, Values], features: Mapping[str, FeatureConfig]
) -> dict[str, tf.Tensor]:
    """Return index features as `[batch, n]` int32 and other features as `[batch, 1]` float32.

    A missing index is `MISSING_INDEX`, a missing number is NaN.
    """
    return {
        name: pad_indices(transformed[name])
        if feature.is_index
        else _first_number(transformed[name])
        for name, feature in features.items()
    }


def _first_number(values: Values) -> tf.Tensor:
    if isinstance(values, tf.RaggedTensor):
        padded = values.to_tensor(float("nan"))
    else:
        padded = tf.sparse.to_dense(values, default_value=float("nan"))
    # If the whole batch lacks the number, there are zero columns.
    return tf.pad(padded, [[0, 0], [0, 1]], constant_values=float("nan"))[:, :1]


def parsing_spec(
    index_names: Iterable[str], features: Mapping[str, FeatureConfig]
) -> dict[str, tf.io.VarLenFeature]:
    """Return the parsing spec of transformed Examples with index columns and features."""
    spec = {name: tf.io.VarLenFeature(tf.int64) for name in index_names}
    for name, feature in features.items():
        spec[name] = tf.io.VarLenFeature(tf.int64 if feature.is_index else tf.float32)
    return spec


@dataclass(frozen=True)
class CandidateTable:
    """Transformed features of the catalogue, in the order of the candidate vocabulary.

    `features[name]` is `[num_candidates, n]` int32 or `[num_candidates, 1]` float32, padded as by
    `dense_features`.
    """

    num_candidates: int
    features: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def read(cls, files: list[str], spec: FeatureSpec, num_candidates: int) -> "CandidateTable":
        """Read the transformed split `candidates`, GZIP TFRecords of `num_candidates` Examples."""
        parsing = parsing_spec([spec.candidate_id], spec.candidate_features)
        blocks = (
            tf.data.TFRecordDataset(files, compression_type="GZIP")
            .batch(_ROWS_PER_BLOCK)
            .map(lambda rows: tf.io.parse_example(rows, parsing))
        )
        indices: list[npt.NDArray[Any]] = [np.zeros(0, np.int32)]
        columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in spec.candidate_features}
        for block in blocks:
            indices.append(pad_indices(block[spec.candidate_id])[:, 0].numpy())
            for name, values in dense_features(block, spec.candidate_features).items():
                columns[name].append(values.numpy())
        order = np.concatenate(indices)
        features = {}
        for name, parts in columns.items():
            values = _concatenated(parts)
            table = np.full((num_candidates, values.shape[1]), _missing(values), values.dtype)
            table[order] = values
            features[name] = table
        return cls(num_candidates, features)


def _concatenated(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Concatenate blocks that are padded to different widths."""
    width = max((part.shape[1] for part in parts), default=0)
    padded = [
        np.pad(part, [(0, 0), (0, width - part.shape[1])], constant_values=_missing(part))
        for part in parts
    ]
    return np.concatenate(padded) if padded else np.zeros((0, width), np.int32)


def _missing(values: npt.NDArray[Any]) -> float:
    return float("nan") if values.dtype == np.float32 else MISSING_INDEX
