"""Cuts the catalogue into leaves of neighbouring vectors: k-means.

In TensorFlow where the work is, so that it uses every core; in NumPy where sums must not depend on
the order in which threads end. The same seed gives the same leaves.
"""

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Vectors = npt.NDArray[np.float32]

# Six rounds over 32 vectors a leaf: at a million 64-dimensional vectors in 4,000 leaves neither
# more rounds nor a larger sample let the search for recall .95 read fewer vectors.
_SAMPLES_A_LEAF = 32
_ROUNDS = 6
# Scores of one block: 32 million float32 are 128 MB.
_SCORES_IN_A_BLOCK = 32_000_000


def cut_into_leaves(vectors: Vectors, num_leaves: int, seed: int) -> npt.NDArray[np.int32]:
    """Returns the leaf of each vector, `[num_vectors]`, without empty leaves.

    Args:
        vectors: `[num_vectors, dimension]`; may be a mapped file.
        num_leaves: The most there may be; fewer where vectors are equal.
        seed: Of the sample and the first centres.

    References:
        Lloyd. Least squares quantization in PCM. IEEE Transactions on Information Theory 1982.
    """
    rng = np.random.default_rng(seed)
    num_samples = min(len(vectors), num_leaves * _SAMPLES_A_LEAF)
    chosen = np.sort(rng.choice(len(vectors), num_samples, replace=False))
    sample = np.ascontiguousarray(vectors[chosen])
    centres = sample[rng.choice(num_samples, min(num_leaves, num_samples), replace=False)]
    for _ in range(_ROUNDS):
        means, sizes = leaf_means(sample, _nearest(sample, centres), len(centres))
        # A centre that nobody is nearest to starts again somewhere else.
        lost = sizes == 0
        means[lost] = sample[rng.choice(num_samples, int(lost.sum()))]
        centres = means
    _, leaves = np.unique(_nearest(vectors, centres), return_inverse=True)
    return leaves.astype(np.int32)


def leaf_means(
    vectors: Vectors, leaves: npt.NDArray[np.int32], num_leaves: int
) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Returns the mean `[num_leaves, dimension]` and the size `[num_leaves]` of each leaf.

    An empty leaf has a mean of zeros.
    """
    sizes = np.bincount(leaves, minlength=num_leaves)
    order = np.argsort(leaves, kind="stable")
    starts = np.cumsum(sizes) - sizes
    means = np.zeros((num_leaves, vectors.shape[1]), np.float32)
    filled = sizes > 0
    means[filled] = np.add.reduceat(vectors[order], starts[filled], axis=0)
    return means / np.maximum(sizes, 1).astype(np.float32)[:, None], sizes


def _nearest(vectors: Vectors, centres: Vectors) -> npt.NDArray[np.int32]:
    """Returns the nearest centre, by Euclidean distance, of each vector."""
    rows = max(1, _SCORES_IN_A_BLOCK // len(centres))
    offsets = tf.constant(-0.5 * np.square(centres).sum(axis=1))
    transposed = tf.constant(np.ascontiguousarray(centres.T))
    return np.concatenate(
        [
            tf.argmax(
                tf.matmul(vectors[start : start + rows], transposed) + offsets,
                axis=1,
                output_type=tf.int32,
            ).numpy()
            for start in range(0, len(vectors), rows)
        ]
    )
