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
from models.towers.export import (
    EMBED_CANDIDATE,
    EMBED_QUERY,
    EMBEDDING_KEY,
    TRANSFORM_CANDIDATE,
    TRANSFORM_QUERY,
)

_CANDIDATES_PER_BATCH = 4096


class SavedTowers:
    """A SavedModel written by `models.towers.export`, which was trained with `spec`.

    The folder must not change, because the loaded model is cached.

    Raises:
        ChangedFeaturesError: The model was trained with other IDs or features.

    Example:
        towers = SavedTowers("runs/clicks/.../Format-Serving", spec)
        ids, vectors = towers.embed_catalogue(split_files(examples_uri, "candidates"))
    """

    def __init__(self, directory: str, spec: FeatureSpec) -> None:
        self.directory = directory
        self.module = _load(directory)
        self._spec = spec
        for name, inputs in (
            (EMBED_QUERY, query_inputs(spec)),
            (EMBED_CANDIDATE, candidate_inputs(spec)),
        ):
            _, trained = self.module.signatures[name].structured_input_signature
            was, now = (
                {key: f"{tensor.dtype.name} of rank {tensor.shape.rank}" for key, tensor in each}
                for each in (trained.items(), inputs.items())
            )
            differences = [
                f"{key} was {was.get(key, 'no input')} and is {now.get(key, 'no input')}"
                for key in sorted(was | now)
                if was.get(key) != now.get(key)
            ]
            if differences:
                raise ChangedFeaturesError(
                    "the IDs and features of the configuration must be those that the model was "
                    f"trained with, but {'; '.join(differences)}; change them back or train again"
                )

    def embed_queries(self, inputs: Mapping[str, tf.Tensor]) -> npt.NDArray[np.float32]:
        """Embed raw queries to `[batch, dimension]`."""
        return np.asarray(self.module.signatures[EMBED_QUERY](**inputs)[EMBEDDING_KEY])

    def embed_candidates(self, inputs: Mapping[str, tf.Tensor]) -> npt.NDArray[np.float32]:
        """Embed raw candidates (`catalogue_inputs`) to `[batch, dimension]`."""
        given = {name: inputs[name] for name in candidate_inputs(self._spec)}
        return np.asarray(self.module.signatures[EMBED_CANDIDATE](**given)[EMBEDDING_KEY])

    def transform_queries(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the transformed ID and features of raw queries (`export_towers`)."""
        return self._transformed(TRANSFORM_QUERY, inputs)

    def transform_candidates(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the transformed ID and features of raw candidates (`export_towers`)."""
        return self._transformed(TRANSFORM_CANDIDATE, inputs)

    def _transformed(self, name: str, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        signature = self.module.signatures[name]
        _, tensors = signature.structured_input_signature
        found: dict[str, tf.Tensor] = signature(**{key: inputs[key] for key in tensors})
        return found

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
