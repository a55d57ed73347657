"""Conversion of transformed features to the padded tensors that the towers read.

Training and serving share these functions, so both give the towers the same tensors.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.features.spec import MISSING_INDEX, MISSING_TIME, FeatureConfig, FeatureSpec
from models.input.availability import Availability

# A batch size for all rows at once.
_ALL = 1 << 40

Values: TypeAlias = Any  # tf.SparseTensor | tf.RaggedTensor


def pad_indices(values: Values, newest: int | None = None) -> tf.Tensor:
    """Return the last `newest` indices per row, `[batch, n]` int32, padded at the end."""
    ragged = tf.cast(_to_ragged(values), tf.int32)
    if newest is not None:
        # Slice before padding, because the last columns of a short padded row are empty.
        ragged = ragged[:, -newest:]
    return ragged.to_tensor(MISSING_INDEX)


def type_indices(types: tf.Tensor, spec: FeatureSpec) -> tf.Tensor:
    """Return the position of each event type in the declared types, int32; -1 for others."""
    found = tf.fill(tf.shape(types), MISSING_INDEX)
    for number, name in enumerate(spec.columns.event_types):
        found = tf.where(types == name, number, found)
    return found


def dense_features(
    transformed: Mapping[str, Values], features: Mapping[str, FeatureConfig]
) -> dict[str, tf.Tensor]:
    """Return index features as `[batch, n]` int32 and other features as `[batch, n]` float32.

    A missing index is `MISSING_INDEX`, a missing number is NaN. Only vectors have several numbers.
    """
    return {
        name: pad_indices(transformed[name])
        if feature.is_index
        else _numbers(transformed[name], feature.dimension or 1)
        for name, feature in features.items()
    }


def _to_ragged(values: Values) -> tf.RaggedTensor:
    """Return the values of each row without gaps, `[batch, (n)]`."""
    if isinstance(values, tf.RaggedTensor):
        return values
    return tf.RaggedTensor.from_value_rowids(
        values.values, values.indices[:, 0], nrows=values.dense_shape[0], validate=False
    )


def _numbers(values: Values, width: int) -> tf.Tensor:
    return _to_ragged(values)[:, :width].to_tensor(float("nan"), shape=[None, width])


def parsing_spec(
    index_names: Iterable[str], features: Mapping[str, FeatureConfig]
) -> dict[str, tf.io.RaggedFeature]:
    """Return the parsing spec of transformed Examples with index columns and features."""
    dtypes = dict.fromkeys(index_names, tf.int64)
    for name, feature in features.items():
        dtypes[name] = tf.int64 if feature.is_index else tf.float32
    return {
        name: tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        for name, dtype in dtypes.items()
    }


def read_candidate_features(
    files: list[str], spec: FeatureSpec, num_candidates: int
) -> dict[str, npt.NDArray[Any]]:
    """Return the transformed features of the catalogue, in the order of the candidate vocabulary.

    `files` are GZIP TFRecords of the transformed split `candidates`. The features are
    `[num_candidates, n]` int32 or `[num_candidates, 1]` float32, padded as by `dense_features`.
    """
    order, parsed = _read_catalogue(files, spec, spec.candidate_features)
    features = {}
    for name, values in dense_features(parsed, spec.candidate_features).items():
        missing = float("nan") if values.dtype == tf.float32 else MISSING_INDEX
        features[name] = np.full((num_candidates, values.shape[1]), missing, values.numpy().dtype)
        features[name][order] = values
    return features


def read_availability(
    files: list[str], spec: FeatureSpec, num_candidates: int
) -> Availability | None:
    """Return the availability of the candidates of the vocabulary, None if there are no columns.

    `files` are those of `read_candidate_features`.
    """
    if not spec.availability:
        return None
    order, parsed = _read_catalogue(files, spec, spec.availability)
    columns = {name: np.full(num_candidates, MISSING_TIME) for name in spec.availability}
    for name, values in columns.items():
        values[order] = parsed[name].to_tensor(MISSING_TIME, [None, 1])[:, 0]
    return Availability.of(columns, num_candidates)


def listed_candidates(
    files: list[str], spec: FeatureSpec, num_candidates: int
) -> npt.NDArray[np.bool_]:
    """Return a mask of the candidates of the vocabulary that the catalogue has.

    `files` are those of `read_candidate_features`.
    """
    is_listed = np.zeros(num_candidates, bool)
    is_listed[_read_catalogue(files, spec, {})[0]] = True
    return is_listed


def _read_catalogue(
    files: list[str], spec: FeatureSpec, features: Mapping[str, FeatureConfig]
) -> tuple[npt.NDArray[np.int32], dict[str, tf.RaggedTensor]]:
    """Return the index of each candidate of the catalogue, and its features."""
    examples = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(_ALL)
    parsing = parsing_spec([spec.candidate_id], features)
    parsed = tf.io.parse_example(examples.get_single_element(), parsing)
    return pad_indices(parsed[spec.candidate_id])[:, 0].numpy(), parsed
