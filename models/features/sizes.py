"""How many different values each transformed feature can take."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft

from models.features.spec import FeatureConfig, FeatureSpec


@dataclass(frozen=True)
class FeatureSizes:
    """Sizes of the embedding tables, out-of-vocabulary bucket included.

    `features` holds the index features of both sides; a normalised number has no size.
    """

    queries: int
    candidates: int
    features: Mapping[str, int]

    @classmethod
    def from_transform(
        cls, transform: tft.TFTransformOutput, spec: FeatureSpec, *, query_vocabulary: bool
    ) -> "FeatureSizes":
        """Reads the sizes of the vocabularies that Transform computed.

        Args:
            transform: What Transform left.
            spec: The ids and features.
            query_vocabulary: Whether query ids have a vocabulary.
        """

        def size(name: str, feature: FeatureConfig | None = None) -> int:
            if feature is not None and feature.kind == "numeric":
                return feature.buckets or 0
            return int(transform.vocabulary_size_by_name(name)) + 1

        features = {**spec.query_features, **spec.candidate_features}
        sizes = {name: size(name, feature) for name, feature in features.items()}
        return cls(
            queries=size(spec.query_id) if query_vocabulary else 1,
            candidates=size(spec.candidate_id),
            features={name: count for name, count in sizes.items() if count},
        )


def candidate_counts(transform: tft.TFTransformOutput, spec: FeatureSpec) -> npt.NDArray[np.int64]:
    """Returns how often each candidate occurs in the training events, `[num_candidates]` int64.

    The order is that of the vocabulary. Transform counted every candidate once more in the
    catalogue, which is taken off.
    """
    path = transform.vocabulary_file_by_name(spec.candidate_id)
    with tf.io.gfile.GFile(path, "rb") as lines:
        counts = np.array([int(line.split(b" ", 1)[0]) for line in lines], dtype=np.int64)
    return np.maximum(counts - 1, 0)
