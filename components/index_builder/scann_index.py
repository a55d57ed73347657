"""Approximate search with the TensorFlow operations of ScaNN.

The ScaNN layer of TensorFlow Recommenders is not used, because it sets neither the threshold of
anisotropic quantization nor the size of the training sample. With a million candidates and the same
search settings, recall is 0.96 with both set and 0.86 without. ScaNN's TensorFlow operations can
save neither bfloat16 vectors nor spilled leaves (SOAR).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scann.scann_ops.py import scann_ops

from components.index_builder.search_index import SearchIndex, SearchResult

_DIMENSIONS_PER_BLOCK = 2
_ANISOTROPIC_THRESHOLD = 0.2
# The leaves are trained with an anisotropic loss too. With 1M candidates and 1 % of the leaves, the
# recall is .944 instead of .927; 1.5 and 4 give almost the same.
_AVQ = 2.5


@dataclass(frozen=True)
class ScannSettings:
    """The number of clusters, of clusters searched per query, and of rescored neighbours.

    With `int8`, each coordinate of a vector is stored in one byte, not four.
    """

    leaves: int
    leaves_to_search: int
    reorder: int
    int8: bool = False


def index_bytes(num_candidates: int, dimension: int, int8: bool) -> int:
    """Return the size in bytes of the saved index without IDs: vectors, codes, leaf numbers.

    A loaded index takes up to 2.5 times as much memory, because the searcher keeps its own copy.
    """
    codes = math.ceil(dimension / _DIMENSIONS_PER_BLOCK)
    return num_candidates * (dimension * (1 if int8 else 4) + codes + 4)


class ScannIndex(SearchIndex):
    """ScaNN index: leaves, anisotropic product quantization, and rescoring of the best neighbours.

    The searcher is saved as variables (`serialize_to_module`) and rebuilt inside the graph, so a
    TF1 session, and therefore TensorFlow Serving, can load it.

    References:
        Guo et al. Accelerating Large-Scale Inference with Anisotropic Vector Quantization.
        ICML 2020.
    """

    backend = "scann"

    def __init__(self, vectors: npt.NDArray[np.float32], k: int, settings: ScannSettings) -> None:
        super().__init__()
        self.num_candidates = len(vectors)
        self.settings = settings
        searcher = (
            scann_ops.builder(vectors, k, "dot_product")
            .tree(
                settings.leaves,
                settings.leaves_to_search,
                training_sample_size=len(vectors),
                avq=_AVQ,
            )
            .score_ah(
                _DIMENSIONS_PER_BLOCK, anisotropic_quantization_threshold=_ANISOTROPIC_THRESHOLD
            )
            .reorder(settings.reorder, quantize=settings.int8)
            .build()
        )
        self._module = searcher.serialize_to_module()
        # The trained searcher, for `attempt`. A searcher from the module would be rebuilt by each
        # trace.
        self._trained: Any = searcher
        self._shape = vectors.shape

    def search(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Return the best candidates (`SearchIndex.search`)."""
        searcher = scann_ops.searcher_from_module(self._module)
        return self.completed(queries, count, self._search_leaves(searcher, queries, count))

    def attempt(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Search only the best leaves; missing candidates have the index 0 and the score NaN."""
        if self._trained is None:
            raise RuntimeError("attempt() must be called before end_tuning()")
        return self._search_leaves(self._trained, queries, count)

    def end_tuning(self) -> None:
        """Free the memory that only `attempt` needs, which is more than that of the vectors."""
        if self._trained is not None:
            # Otherwise TensorFlow keeps the resource until the process ends.
            tf.raw_ops.DestroyResourceOp(resource=self._trained.searcher_handle)
            self._trained = None

    def _search_leaves(self, searcher: Any, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        indices, scores = searcher.search_batched(
            queries,
            final_num_neighbors=count,
            leaves_to_search=self.settings.leaves_to_search,
            # With fewer than `count`, ScaNN would silently return fewer candidates.
            pre_reorder_num_neighbors=tf.maximum(count, self.settings.reorder),
        )
        # ScaNN returns index 0 and score NaN for a missing neighbour, and omits a column that is
        # missing in all rows.
        missing = [[0, 0], [0, count - tf.shape(indices)[1]]]
        return tf.pad(indices, missing), tf.pad(scores, missing, constant_values=np.nan)

    def scores_of_all(self, queries: tf.Tensor) -> tf.Tensor:
        """Return the scores `[batch, num_candidates]` of all candidates."""
        return tf.matmul(queries, self._decoded(self._stored()), transpose_b=True)

    def vectors_at(self, indices: tf.Tensor) -> tf.Tensor:
        """Return the vectors `[…, dimension]` of the candidates `indices` `[…]`."""
        return self._decoded(tf.gather(self._stored(), indices))

    def _stored(self) -> tf.Tensor:
        stored = self._module.int8_dataset if self.settings.int8 else self._module.dataset
        return tf.reshape(stored, self._shape)

    def _decoded(self, stored: tf.Tensor) -> tf.Tensor:
        if not self.settings.int8:
            return stored
        return tf.cast(stored, tf.float32) / self._module.int8_multipliers
