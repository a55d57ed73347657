"""The towers as they were exported, for whoever asks them in process."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.export import EMBED_CANDIDATE, EMBED_QUERY, EMBEDDING_KEY
from models.features import FeatureSpec
from models.raw_examples import read_candidates

_CANDIDATES_A_BATCH = 4096


class SavedTowers:
    """A SavedModel of `models.export`, loaded.

    Args:
        directory: Of the SavedModel.
        spec: Ids and features that it was trained with.
    """

    def __init__(self, directory: str, spec: FeatureSpec) -> None:
        self.module = tf.saved_model.load(directory)
        self._spec = spec

    def embed_queries(self, inputs: Mapping[str, tf.Tensor]) -> npt.NDArray[np.float32]:
        """Embeds raw queries, `[batch, dimension]`."""
        embeddings = self.module.signatures[EMBED_QUERY](**inputs)[EMBEDDING_KEY]
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
        embed = self.module.signatures[EMBED_CANDIDATE]
        for inputs in read_candidates(files, self._spec, _CANDIDATES_A_BATCH):
            ids.append(inputs[self._spec.candidate_id].numpy())
            vectors.append(embed(**inputs)[EMBEDDING_KEY].numpy())
        return np.concatenate(ids), np.concatenate(vectors)
