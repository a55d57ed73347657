"""Approximate search with TensorFlow's own operations, for servers without ScaNN's operations.

K-means splits the catalogue into leaves. Each leaf is stored in blocks of equal size, the last one
padded. A search ranks the leaves, reads a fixed number of blocks from the best ones, and scores
every vector in them, so all queries cost the same.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.index_builder.search_index import SearchIndex, SearchResult

Vectors = npt.NDArray[np.float32]

# Vectors per block. With 250 vectors per leaf, 6 % of the stored vectors are padding.
BLOCK_SIZE = 32
# Estimate of how far the best vector of a leaf is above the leaf's mean, in units of the root mean
# square distance from the mean. Measured with a million vectors: with 0.6, a search reads half as
# many vectors as with 0; with 0.4 or 0.8, it reads a tenth more.
_SPREAD_WEIGHT = 0.6
# Maximum size of the vectors gathered at a time. Larger batches are processed in parts, which fit
# into the processor's cache.
_GATHERED_BYTES = 16_000_000
_SEED = 0
# With a million 64-dimensional vectors in 4,000 leaves, neither more than six rounds nor more than
# 32 samples per leaf reduced the number of vectors that a search reads for a recall of 0.95.
_SAMPLES_PER_LEAF = 32
_ROUNDS = 6
# Maximum number of scores that k-means computes at a time: 32 million float32 take 128 MB.
_SCORES_PER_BLOCK = 32_000_000


@dataclass(frozen=True)
class PartitionedSettings:
    """The maximum number of clusters of the catalogue, and the number of blocks read per query."""

    leaves: int
    blocks_to_search: int

    @classmethod
    def of_leaves(cls, leaves: int, searched: int, num_candidates: int) -> "PartitionedSettings":
        """Return the settings that read about `searched` of the leaves."""
        # On average, half a block per leaf is padding.
        return cls(leaves, math.ceil(searched * (num_candidates / leaves / BLOCK_SIZE + 0.5)))


class PartitionedIndex(SearchIndex):
    """Index that computes exact scores, but only for the vectors of the best leaves.

    Leaves are ranked by the score of their mean plus a term that grows with the spread of their
    vectors, because the best vector of a leaf scores higher than the mean.
    """

    backend = "partitioned"

    def __init__(self, vectors: Vectors, settings: PartitionedSettings) -> None:
        super().__init__()
        self.settings = settings
        self.num_candidates, self._dimension = vectors.shape
        leaves = cut_into_leaves(vectors, settings.leaves, _SEED)
        means, sizes = leaf_means(vectors, leaves, int(leaves.max()) + 1)
        # The squared distances from the mean, averaged over a leaf, are the mean of the squared
        # lengths of its vectors minus the squared length of their mean.
        squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
        variance = np.bincount(leaves, weights=squares) / sizes
        variance -= np.einsum("ld,ld->l", means, means, dtype=np.float64)
        spread = np.sqrt(np.maximum(variance, 0.0)).astype(np.float32)
        num_blocks = -(-sizes // BLOCK_SIZE)
        first_block = np.cumsum(num_blocks) - num_blocks
        self._num_leaves, self._num_blocks = len(sizes), int(num_blocks.sum())
        order = np.argsort(leaves, kind="stable").astype(np.int32)
        within_leaf = np.arange(self.num_candidates) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        positions = np.repeat(first_block, sizes) * BLOCK_SIZE + within_leaf
        # An additional block of padding, for queries whose leaves have fewer blocks than a search
        # reads.
        num_positions = (self._num_blocks + 1) * BLOCK_SIZE
        blocks = np.zeros((num_positions, self._dimension), np.float32)
        blocks[positions] = vectors[order]
        candidates = np.full(num_positions, -1, np.int32)
        candidates[positions] = order
        position_of = np.empty(self.num_candidates, np.int32)
        position_of[order] = positions
        # Added to the scores, so that padding ranks last.
        padding = np.where(candidates < 0, np.float32(-np.inf), np.float32(0.0))
        # Before rows are gathered, `read_value()` reads the variable: after a gather from the
        # variable itself, TensorFlow copies the whole variable on every later read.
        self._means = tf.Variable(means, False)
        self._spread = tf.Variable(_SPREAD_WEIGHT * spread, False)
        self._leaf_blocks = tf.Variable(num_blocks.astype(np.int32), False)
        self._first_block = tf.Variable(first_block.astype(np.int32), False)
        self._blocks = tf.Variable(blocks.reshape(-1, BLOCK_SIZE, self._dimension), False)
        self._candidates = tf.Variable(candidates, False)
        self._position_of = tf.Variable(position_of, False)
        self._padding = tf.Variable(padding.reshape(-1, BLOCK_SIZE), False)

    def attempt(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Search only the best leaves; missing candidates have the index -1 and the score -inf."""
        at_once = max(1, _GATHERED_BYTES // self._bytes_read())
        width = tf.minimum(count, self._blocks_to_search() * BLOCK_SIZE)
        indices, scores = tf.cond(
            tf.shape(queries)[0] <= at_once,
            lambda: self._search_leaves(queries, width),
            lambda: self._search_in_parts(queries, width, at_once),
        )
        missing = [[0, 0], [0, count - width]]
        return (
            tf.pad(indices, missing, constant_values=-1),
            tf.pad(scores, missing, constant_values=-np.inf),
        )

    def scores_of_all(self, queries: tf.Tensor) -> tf.Tensor:
        """Return the scores `[batch, num_candidates]` of all candidates."""
        vectors = tf.reshape(self._blocks, [-1, self._dimension])
        scores = tf.matmul(queries, vectors, transpose_b=True)
        return tf.gather(scores, self._position_of, axis=1)

    def vectors_at(self, indices: tf.Tensor) -> tf.Tensor:
        """Return the vectors `[…, dimension]` of the candidates `indices` `[…]`."""
        vectors = tf.reshape(self._blocks, [-1, self._dimension])
        return tf.gather(vectors, tf.gather(self._position_of.read_value(), indices))

    def _blocks_to_search(self) -> int:
        return min(int(self.settings.blocks_to_search), self._num_blocks)

    def _bytes_read(self) -> int:
        return 4 * self._blocks_to_search() * BLOCK_SIZE * self._dimension

    def _search_in_parts(self, queries: tf.Tensor, count: tf.Tensor, at_once: int) -> SearchResult:
        batch = tf.shape(queries)[0]
        parts = -(-batch // at_once)
        padded = tf.pad(queries, [[0, parts * at_once - batch], [0, 0]])
        indices, scores = tf.map_fn(
            lambda part: self._search_leaves(part, count),
            tf.reshape(padded, [-1, at_once, self._dimension]),
            fn_output_signature=(
                tf.TensorSpec([at_once, None], tf.int32),
                tf.TensorSpec([at_once, None], tf.float32),
            ),
            parallel_iterations=1,
        )
        return (
            tf.reshape(indices, [-1, count])[:batch],
            tf.reshape(scores, [-1, count])[:batch],
        )

    def _search_leaves(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        blocks = self._blocks_for(queries)
        batch, width = tf.shape(queries)[0], self._blocks_to_search() * BLOCK_SIZE
        vectors = tf.reshape(
            tf.gather(self._blocks.read_value(), blocks), [batch, width, self._dimension]
        )
        scores = tf.matmul(vectors, queries[:, :, None])[:, :, 0]
        scores += tf.reshape(tf.gather(self._padding.read_value(), blocks), [batch, width])
        best, order = tf.math.top_k(scores, count)
        positions = tf.gather(blocks, order // BLOCK_SIZE, batch_dims=1) * BLOCK_SIZE
        positions += order % BLOCK_SIZE
        return tf.gather(self._candidates.read_value(), positions), best

    def _blocks_for(self, queries: tf.Tensor) -> tf.Tensor:
        """Return the blocks to read for each query, `[batch, blocks_to_search]`."""
        wanted = self._blocks_to_search()
        # Usually enough leaves even if the best ones are small; if not, padding fills the rest.
        mean = self._num_blocks / self._num_leaves
        num_leaves = min(self._num_leaves, math.ceil(1.5 * wanted / mean) + 8)
        scores = tf.matmul(queries, self._means, transpose_b=True)
        scores += tf.norm(queries, axis=1, keepdims=True) * self._spread
        leaves = tf.math.top_k(scores, num_leaves).indices
        sizes = tf.gather(self._leaf_blocks.read_value(), leaves)
        ends = tf.cumsum(sizes, axis=1)
        # The n-th block belongs to the first leaf that ends after it.
        nth = tf.broadcast_to(tf.range(wanted), [tf.shape(queries)[0], wanted])
        leaf = tf.searchsorted(ends, nth, side="right")
        offsets = tf.gather(self._first_block.read_value(), leaves) - (ends - sizes)
        blocks = nth + tf.gather(offsets, tf.minimum(leaf, num_leaves - 1), batch_dims=1)
        return tf.where(leaf < num_leaves, blocks, self._num_blocks)


def cut_into_leaves(vectors: Vectors, num_leaves: int, seed: int) -> npt.NDArray[np.int32]:
    """Cluster vectors with k-means and return the leaf of each, `[num_vectors]`.

    No leaf is empty. There may be fewer than `num_leaves`, for example if vectors are equal. NumPy
    sums the vectors in a fixed order, so the same seed gives the same leaves.

    References:
        Lloyd. Least squares quantization in PCM. IEEE Transactions on Information Theory 1982.
    """
    rng = np.random.default_rng(seed)
    num_samples = min(len(vectors), num_leaves * _SAMPLES_PER_LEAF)
    chosen = np.sort(rng.choice(len(vectors), num_samples, replace=False))
    sample = np.ascontiguousarray(vectors[chosen])
    centres = sample[rng.choice(num_samples, min(num_leaves, num_samples), replace=False)]
    for _ in range(_ROUNDS):
        means, sizes = leaf_means(sample, _nearest(sample, centres), len(centres))
        # A centre without vectors moves to a random vector.
        lost = sizes == 0
        means[lost] = sample[rng.choice(num_samples, int(lost.sum()))]
        centres = means
    _, leaves = np.unique(_nearest(vectors, centres), return_inverse=True)
    return leaves.astype(np.int32)


def leaf_means(
    vectors: Vectors, leaves: npt.NDArray[np.int32], num_leaves: int
) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Return the mean vector of each leaf (zeros for an empty leaf) and the leaf sizes."""
    sizes = np.bincount(leaves, minlength=num_leaves)
    order = np.argsort(leaves, kind="stable")
    starts = np.cumsum(sizes) - sizes
    means = np.zeros((num_leaves, vectors.shape[1]), np.float32)
    filled = sizes > 0
    means[filled] = np.add.reduceat(vectors[order], starts[filled], axis=0)
    return means / np.maximum(sizes, 1).astype(np.float32)[:, None], sizes


def _nearest(vectors: Vectors, centres: Vectors) -> npt.NDArray[np.int32]:
    """Return the index of the nearest centre (Euclidean) of each vector, `[num_vectors]`."""
    rows = max(1, _SCORES_PER_BLOCK // len(centres))
    offsets, transposed = -0.5 * np.square(centres).sum(axis=1), tf.constant(centres.T)
    parts = [vectors[start : start + rows] for start in range(0, len(vectors), rows)]
    scores = (tf.matmul(part, transposed) + offsets for part in parts)
    return np.concatenate([tf.argmax(of, axis=1, output_type=tf.int32).numpy() for of in scores])
