"""The catalogue as the model holds it: features by candidate index."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.features.dense_features import MISSING_INDEX, dense_features, pad_indices, parse_spec
from models.features.spec import FeatureSpec

_ROWS_A_BLOCK = 65_536


@dataclass(frozen=True)
class CandidateTable:
    """Transformed features of each known candidate, in the order of the vocabulary.

    `features[name]` is `[num_candidates, n]` int32 or `[num_candidates, 1]` float32, padded as
    `models.features.dense_features` does.
    """

    num_candidates: int
    features: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def read(cls, files: list[str], spec: FeatureSpec, num_candidates: int) -> "CandidateTable":
        """Reads the transformed `candidates` split.

        Args:
            files: GZIP TFRecords of transformed Examples.
            spec: Ids and features.
            num_candidates: Size of the vocabulary, without the out-of-vocabulary bucket.
        """
        parsing = parse_spec([spec.candidate_id], spec.candidate_features)
        blocks = (
            tf.data.TFRecordDataset(files, compression_type="GZIP")
            .batch(_ROWS_A_BLOCK)
            .map(lambda rows: tf.io.parse_example(rows, parsing))
        )
        indices: list[npt.NDArray[Any]] = []
        columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in spec.candidate_features}
        for block in blocks:
            indices.append(pad_indices(block[spec.candidate_id])[:, 0].numpy())
            for name, values in dense_features(block, spec.candidate_features).items():
                columns[name].append(values.numpy())
        order = np.concatenate(indices) if indices else np.zeros(0, np.int32)
        features = {}
        for name, parts in columns.items():
            values = _stack(parts)
            table = np.full((num_candidates, values.shape[1]), _missing(values), values.dtype)
            table[order] = values
            features[name] = table
        return cls(num_candidates, features)


def _stack(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Stacks blocks whose padding differs in width."""
    width = max((part.shape[1] for part in parts), default=0)
    padded = [
        np.pad(part, [(0, 0), (0, width - part.shape[1])], constant_values=_missing(part))
        for part in parts
    ]
    return np.concatenate(padded) if padded else np.zeros((0, width), np.int32)


def _missing(values: npt.NDArray[Any]) -> float:
    return float("nan") if values.dtype == np.float32 else MISSING_INDEX
