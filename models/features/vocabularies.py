"""The vocabularies that Transform computed: sizes, counts and values."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft

from models.features.spec import FeatureSpec

_ESCAPED = re.compile(rb"\\([\\nr])")
_RAW = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}


@dataclass(frozen=True)
class FeatureSizes:
    """Numbers of rows of the embedding tables, including those for out-of-vocabulary values.

    `features` contains the index features of queries and candidates. Numeric features without
    buckets have no table.
    """

    queries: int
    candidates: int
    features: Mapping[str, int]

    @classmethod
    def from_transform(
        cls, transform: tft.TFTransformOutput, spec: FeatureSpec, *, query_vocabulary: bool
    ) -> "FeatureSizes":
        """Read the sizes from Transform's output; without a vocabulary, query IDs have one row."""

        def size(name: str) -> int:
            return int(transform.vocabulary_size_by_name(name)) + 1

        features = {
            name: feature.fixed_size or size(name)
            for name, feature in {**spec.request_features, **spec.candidate_features}.items()
            if feature.is_index
        }
        queries = size(spec.query_id) if query_vocabulary else 1
        return cls(queries, size(spec.candidate_id), features)


def candidate_counts(transform: tft.TFTransformOutput, spec: FeatureSpec) -> npt.NDArray[np.int64]:
    """Return the number of training events of each candidate, `[num_candidates]` int64.

    The counts are in the order of the vocabulary, which has the candidates of the training events
    and of the catalogue.
    """
    path = transform.vocabulary_file_by_name(spec.candidate_id)
    with tf.io.gfile.GFile(path, "rb") as lines:
        return np.array([int(line.split(b" ", 1)[0]) for line in lines], dtype=np.int64)


def vocabulary_names(spec: FeatureSpec) -> list[str]:
    """Return the names of the vocabularies; those of the two IDs contain counts."""
    features = {**spec.request_features, **spec.candidate_features}
    names = [name for name, feature in features.items() if not feature.holds_numbers]
    return [spec.candidate_id, spec.query_id, *names]


def read_vocabularies(directory: str, spec: FeatureSpec) -> dict[str, Sequence[bytes]]:
    """Return the values of each vocabulary in the order of their indices.

    `directory` is a SavedModel of Transform or of the towers. Query IDs may have no vocabulary.
    """
    found: dict[str, Sequence[bytes]] = {}
    for name in vocabulary_names(spec):
        path = os.path.join(directory, tf.saved_model.ASSETS_DIRECTORY, name)
        if tf.io.gfile.exists(path):
            is_id = name in (spec.candidate_id, spec.query_id)
            found[name] = read_vocabulary(path, counted=is_id)
    return found


def read_vocabulary(path: str, *, counted: bool) -> list[bytes]:
    """Return the values of a vocabulary file.

    With `counted`, each line starts with a count and holds an ID, otherwise an escaped value.
    """
    with tf.io.gfile.GFile(path, "rb") as file:
        # `splitlines` would also split at characters that Transform allows in values.
        lines: list[bytes] = file.read().split(b"\n")
    lines.pop()
    if counted:
        return [line.partition(b" ")[2] for line in lines]
    return [_ESCAPED.sub(lambda found: _RAW[found[1]], line) for line in lines]


def escape_line_ends(values: tf.Tensor) -> tf.Tensor:
    """Escape backslashes and line ends in feature values, so that each fits into a line.

    Transform leaves values with line ends out of a vocabulary. `read_vocabulary` restores them.
    """
    for pattern, replacement in ((r"\\", r"\\\\"), ("\n", r"\\n"), ("\r", r"\\r")):
        values = tf.strings.regex_replace(values, pattern, replacement)
    return values
