"""The towers as they were exported, for whoever asks them in process."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.features.spec import FeatureSpec
from models.input.raw_examples import read_candidates
from models.input.raw_inputs import candidate_inputs, query_inputs
from models.towers.export import EMBED_CANDIDATE, EMBED_QUERY, EMBEDDING_KEY

_CANDIDATES_A_BATCH = 4096


class ChangedFeaturesError(ValueError):
    """The model was fitted with other features than the configuration has now; fit it anew."""


class SavedTowers:
    """A SavedModel of `models.towers.export`, loaded.

    Args:
        directory: Of the SavedModel; what it holds never changes.
        spec: Ids and features that it was trained with.

    Raises:
        ChangedFeaturesError: It was trained with others.
    """

    def __init__(self, directory: str, spec: FeatureSpec) -> None:
        self.module = _load(directory)
        self._spec = spec
        for name, inputs in (
            (EMBED_QUERY, query_inputs(spec)),
            (EMBED_CANDIDATE, candidate_inputs(spec)),
        ):
            _, fitted = self.module.signatures[name].structured_input_signature
            _require_same_inputs(fitted, inputs)

    def embed_queries(self, inputs: Mapping[str, tf.Tensor]) -> npt.NDArray[np.float32]:
        """Embeds raw queries, `[batch, dimension]`."""
        embeddings = self.module.signatures[EMBED_QUERY](**inputs)[EMBEDDING_KEY]
        return np.asarray(embeddings.numpy(), np.float32)

    def embed_candidates(self, inputs: Mapping[str, tf.Tensor]) -> npt.NDArray[np.float32]:
        """Embeds raw candidates, `[batch, dimension]`."""
        embeddings = self.module.signatures[EMBED_CANDIDATE](**inputs)[EMBEDDING_KEY]
        return np.asarray(embeddings.numpy(), np.float32)

    def embed_catalogue(
        self, files: list[str]
    ) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.float32]]:
        """Embeds the raw `candidates` split.

        Returns:
            Ids `[num_candidates]` as bytes and vectors `[num_candidates, dimension]`.
        """
        ids: list[npt.NDArray[np.object_]] = []
        vectors: list[npt.NDArray[np.float32]] = []
        for inputs in read_candidates(files, self._spec, _CANDIDATES_A_BATCH):
            ids.append(inputs[self._spec.candidate_id].numpy())
            vectors.append(self.embed_candidates(inputs))
        return np.concatenate(ids), np.concatenate(vectors)


# Three components in a row ask the same model.
@functools.lru_cache(maxsize=1)
def _load(directory: str) -> Any:
    return tf.saved_model.load(directory)


def _require_same_inputs(
    fitted: Mapping[str, tf.TensorSpec], wanted: Mapping[str, tf.TensorSpec]
) -> None:
    def described(inputs: Mapping[str, tf.TensorSpec]) -> dict[str, str]:
        return {
            name: f"{tensor.dtype.name} of rank {tensor.shape.rank}"
            for name, tensor in inputs.items()
        }

    was, now = described(fitted), described(wanted)
    if was == now:
        return
    differences = [
        f"{name} was {was.get(name, 'no input')} and is {now.get(name, 'no input')}"
        for name in sorted(was | now)
        if was.get(name) != now.get(name)
    ]
    raise ChangedFeaturesError(
        "the model was fitted with other ids or features than the configuration has: "
        + "; ".join(differences)
    )
