"""Approximate search with TensorFlow's own operations, for servers that lack ScaNN's.

The catalogue is cut into leaves by k-means, and each leaf stands in blocks of equal size, the last
one padded. A search ranks the leaves, takes the blocks of the best ones up to a fixed number, and
compares every vector in them: the cost of a query is known beforehand.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.index_builder.leaves import cut_into_leaves, leaf_means
from components.index_builder.search_index import SearchResult, completed

# Vectors in a block. Of 250 in a leaf, 6 % of the places are then padding.
BLOCK_SIZE = 32
# Leaves a square root of the catalogue: more make ranking them the larger part of a search.
_LEAVES_OF_ROOT = 4
# What the best vector of a leaf may lie above its mean, in root mean square distances from it.
# Measured at a million vectors: with 0.6 a search reads half of what it reads with 0; 0.4 and 0.8
# read a tenth more.
_SPREAD_WEIGHT = 0.6
# Vectors that are gathered at once; larger batches go in parts, so that they stay in the cache.
_GATHERED_BYTES = 16_000_000
_SEED = 0


@dataclass(frozen=True)
class PartitionedSettings:
    """How the index is cut and searched.

    Attributes:
        leaves: Clusters of the catalogue, at most.
        blocks_to_search: Blocks that are read for a query.
    """

    leaves: int
    blocks_to_search: int

    @classmethod
    def choose(
        cls, num_candidates: int, leaves: int | None, leaves_to_search: int | None
    ) -> "PartitionedSettings":
        """Fills in what is not given: 4 √n leaves, a twentieth of them searched."""
        chosen = min(
            leaves or max(1, round(_LEAVES_OF_ROOT * math.sqrt(num_candidates))), num_candidates
        )
        searched = min(leaves_to_search or math.ceil(chosen / 20), chosen)
        return cls(chosen, blocks_of(num_candidates, chosen, searched))


def blocks_of(num_candidates: int, leaves: int, leaves_to_search: int) -> int:
    """Returns the blocks of as many leaves of the mean size."""
    # Half a block a leaf is padding.
    return math.ceil(leaves_to_search * (num_candidates / leaves / BLOCK_SIZE + 0.5))


class PartitionedIndex(tf.Module):
    """Leaves of blocks, the best of which are compared exactly.

    A leaf is ranked by the score of its mean, and the more its vectors spread, the higher: the best
    of many lies above their mean.

    Args:
        vectors: `[num_candidates, dimension]`.
        settings: How it is cut and searched.
    """

    backend = "partitioned"

    def __init__(self, vectors: npt.NDArray[np.float32], settings: PartitionedSettings) -> None:
        super().__init__()
        self.settings = settings
        self.num_candidates, self._dimension = vectors.shape
        leaves = cut_into_leaves(vectors, settings.leaves, _SEED)
        means, sizes = leaf_means(vectors, leaves, int(leaves.max()) + 1)
        spread = np.sqrt(_mean_square_distance(vectors, leaves, means, sizes))
        num_blocks = -(-sizes // BLOCK_SIZE)
        first_block = np.cumsum(num_blocks) - num_blocks
        self._num_leaves, self._num_blocks = len(sizes), int(num_blocks.sum())
        order = np.argsort(leaves, kind="stable").astype(np.int32)
        within_leaf = np.arange(self.num_candidates) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = np.repeat(first_block, sizes) * BLOCK_SIZE + within_leaf
        # One more block, of padding only, for a query whose leaves have fewer than it may read.
        num_places = (self._num_blocks + 1) * BLOCK_SIZE
        blocks = np.zeros((num_places, self._dimension), np.float32)
        blocks[places] = vectors[order]
        candidates = np.full(num_places, -1, np.int32)
        candidates[places] = order
        place_of = np.empty(self.num_candidates, np.int32)
        place_of[order] = places

        def variable(values: npt.NDArray[np.generic], name: str) -> tf.Variable:
            return tf.Variable(values, trainable=False, name=name)

        # Wherever rows are gathered of these, they are read first: a gather from the variable
        # itself makes TensorFlow copy the whole of it at every later read.

        self._means = variable(means, "leaf_means")
        self._spread = variable(_SPREAD_WEIGHT * spread, "leaf_spread")
        self._leaf_blocks = variable(num_blocks.astype(np.int32), "leaf_blocks")
        self._first_block = variable(first_block.astype(np.int32), "first_block")
        self._blocks = variable(blocks.reshape(-1, BLOCK_SIZE, self._dimension), "blocks")
        self._candidates = variable(candidates, "candidates")
        self._place_of = variable(place_of, "place_of")
        # Added to the scores: padding loses against everything.
        self._padding = variable(
            np.where(candidates < 0, np.float32(-np.inf), 0.0)
            .astype(np.float32)
            .reshape(-1, BLOCK_SIZE),
            "padding",
        )

    def search(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Returns indices and scores `[batch, count]`, best first (`SearchIndex.search`)."""
        return completed(self, queries, count, self.attempt(queries, count))

    def attempt(self, queries: tf.Tensor, count: tf.Tensor) -> SearchResult:
        """Returns what the leaves hold; the scores of missing places are -inf."""
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

    def end_tuning(self) -> None:
        """Does nothing: an attempt needs no more than a search."""

    def scores_of_all(self, queries: tf.Tensor) -> tf.Tensor:
        """Returns the scores `[batch, num_candidates]` of all candidates."""
        vectors = tf.reshape(self._blocks, [-1, self._dimension])
        scores = tf.matmul(queries, vectors, transpose_b=True)
        return tf.gather(scores, self._place_of, axis=1)

    def vectors_at(self, indices: tf.Tensor) -> tf.Tensor:
        """Returns the vectors of candidates, `[…]` to `[…, dimension]`."""
        vectors = tf.reshape(self._blocks, [-1, self._dimension])
        return tf.gather(vectors, tf.gather(self._place_of.read_value(), indices))

    def _blocks_to_search(self) -> int:
        return min(self.settings.blocks_to_search, self._num_blocks)

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
        batch, places = tf.shape(queries)[0], self._blocks_to_search() * BLOCK_SIZE
        vectors = tf.reshape(
            tf.gather(self._blocks.read_value(), blocks), [batch, places, self._dimension]
        )
        scores = tf.matmul(vectors, queries[:, :, None])[:, :, 0]
        scores += tf.reshape(tf.gather(self._padding.read_value(), blocks), [batch, places])
        best, order = tf.math.top_k(scores, count)
        block = tf.gather(blocks, order // BLOCK_SIZE, batch_dims=1)
        return tf.gather(
            self._candidates.read_value(), block * BLOCK_SIZE + order % BLOCK_SIZE
        ), best

    def _blocks_for(self, queries: tf.Tensor) -> tf.Tensor:
        """Returns the blocks to read for each query, `[batch, blocks_to_search]`."""
        wanted = self._blocks_to_search()
        # Small leaves have the fewest blocks; where even so many have too few, padding fills up.
        mean = self._num_blocks / self._num_leaves
        num_leaves = min(self._num_leaves, math.ceil(1.5 * wanted / mean) + 8)
        scores = tf.matmul(queries, self._means, transpose_b=True)
        scores += tf.norm(queries, axis=1, keepdims=True) * self._spread
        leaves = tf.math.top_k(scores, num_leaves).indices
        sizes = tf.gather(self._leaf_blocks.read_value(), leaves)
        ends = tf.cumsum(sizes, axis=1)
        # The n-th block belongs to the first leaf that ends behind it.
        nth = tf.broadcast_to(tf.range(wanted), [tf.shape(queries)[0], wanted])
        leaf = tf.searchsorted(ends, nth, side="right")
        offsets = tf.gather(self._first_block.read_value(), leaves) - (ends - sizes)
        blocks = nth + tf.gather(offsets, tf.minimum(leaf, num_leaves - 1), batch_dims=1)
        return tf.where(leaf < num_leaves, blocks, self._num_blocks)


def _mean_square_distance(
    vectors: npt.NDArray[np.float32],
    leaves: npt.NDArray[np.int32],
    means: npt.NDArray[np.float32],
    sizes: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Returns the mean square distance from its mean in each leaf, `[num_leaves]`."""
    # The mean square length less the square length of the mean.
    squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    mean_squares = np.bincount(leaves, weights=squares) / sizes
    spread = mean_squares - np.einsum("ld,ld->l", means, means, dtype=np.float64)
    return np.asarray(np.maximum(spread, 0.0), np.float32)
