"""Exported towers, loaded into this process."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.errors import ChangedFeaturesError
from models.features.spec import FeatureSpec
from models.input.raw_examples import read_candidates
from models.input.raw_inputs import candidate_inputs, query_inputs
from models.towers.export import EMBED_CANDIDATE, EMBED_QUERY, EMBEDDING_KEY

_CANDIDATES_PER_BATCH = 4096


class SavedTowers:
    """A SavedModel written by `models.towers.export`.

    Args:
        directory: Folder of the SavedModel. It must not change, because the loaded model is cached.
        spec: IDs and features that the model was trained with.

    Raises:
        ChangedFeaturesError: The model was trained with other IDs or features.

    Example:
        towers = SavedTowers("runs/clicks/.../Format-Serving", spec)
        ids, vectors = towers.embed_catalogue(split_files(examples_uri, "candidates"))
    """

    def __init__(self, directory: str, spec: FeatureSpec) -> None:
        self.module = _load(directory)
        self._spec = spec
        for name, inputs in (
            (EMBED_QUERY, query_inputs(spec)),
            (EMBED_CANDIDATE, candidate_inputs(spec)),
        ):
            _, trained = self.module.signatures[name].structured_input_signature
            _require_same_inputs(trained, inputs)

    def embed_queries(self, inputs: Mapping[str, tf.Tensor]) -> npt.NDArray[np.float32]:
        """Embed raw queries to `[batch, dimension]`."""
        embeddings = self.module.signatures[EMBED_QUERY](**inputs)[EMBEDDING_KEY]
        return np.asarray(embeddings.numpy(), np.float32)

    def embed_candidates(self, inputs: Mapping[str, tf.Tensor]) -> npt.NDArray[np.float32]:
        """Embed raw candidates to `[batch, dimension]`."""
        embeddings = self.module.signatures[EMBED_CANDIDATE](**inputs)[EMBEDDING_KEY]
        return np.asarray(embeddings.numpy(), np.float32)

    def embed_catalogue(
        self, files: list[str]
    ) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.float32]]:
        """Return IDs `[n]` as bytes and vectors `[n, dimension]` of the raw split `candidates`."""
        ids: list[npt.NDArray[np.object_]] = []
        vectors: list[npt.NDArray[np.float32]] = []
        for inputs in read_candidates(files, self._spec, _CANDIDATES_PER_BATCH):
            ids.append(inputs[self._spec.candidate_id].numpy())
            vectors.append(self.embed_candidates(inputs))
        return np.concatenate(ids), np.concatenate(vectors)


# Cached, because consecutive components use the same model.
@functools.lru_cache(maxsize=1)
def _load(directory: str) -> Any:
    return tf.saved_model.load(directory)


def _require_same_inputs(
    trained: Mapping[str, tf.TensorSpec], configured: Mapping[str, tf.TensorSpec]
) -> None:
    was, now = (
        {
            name: f"{tensor.dtype.name} of rank {tensor.shape.rank}"
            for name, tensor in inputs.items()
        }
        for inputs in (trained, configured)
    )
    differences = [
        f"{name} was {was.get(name, 'no input')} and is {now.get(name, 'no input')}"
        for name in sorted(was | now)
        if was.get(name) != now.get(name)
    ]
    if differences:
        raise ChangedFeaturesError(
            "the IDs and features of the configuration must be those that the model was trained "
            f"with, but {'; '.join(differences)}; change them back or train again"
        )
