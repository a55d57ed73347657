"""Truncated SVD of the events: vectors of candidates without training."""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from models.ranking.cooccurrence import binary

Vectors = npt.NDArray[np.float32]

_OVERSAMPLING = 16
_ITERATIONS = 4
# Bounds memory: products of timelines and vectors at a time.
_CELLS_PER_CHUNK = 32_000_000


def truncated_svd(
    candidates: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    num_candidates: int,
    dimension: int,
    seed: int = 0,
) -> tuple[Vectors, Vectors]:
    """Return the vectors of events and of ranked candidates, both `[num_candidates, dimension]`.

    With X the binary matrix of timelines and candidates, and D the diagonal matrices of its row and
    column sums, V are the right singular vectors of D_rows^-1/2 X D_columns^-1/2. The vector of an
    event is V / sqrt(count) and that of a candidate V * sqrt(count), with the number of timelines
    that contain it. The score of a candidate is the dot product with the mean over a history. A
    candidate without events has zero vectors. `candidates` and `offsets` are timelines as in
    `models.ranking.cooccurrence`.

    References:
        Halko, Martinsson, Tropp. Finding Structure with Randomness. SIAM Review 2011. (subspace
        iteration)
    """
    number = len(offsets) - 1
    timeline = np.repeat(np.arange(number), np.diff(offsets))
    events = binary(timeline, candidates, (number, num_candidates))
    lengths, counts = events.getnnz(axis=1), events.getnnz(axis=0).astype(np.float32)
    events.data /= np.sqrt(np.repeat(lengths, lengths) * counts[events.indices])
    width = min(dimension + _OVERSAMPLING, num_candidates)
    basis = np.random.default_rng(seed).standard_normal((num_candidates, width), np.float32)
    for _ in range(_ITERATIONS):
        basis = np.linalg.qr(_gram_product(events, basis))[0]
    _, rotation = np.linalg.eigh(basis.T @ _gram_product(events, basis))
    vectors = np.zeros((num_candidates, dimension), np.float32)
    found = basis @ rotation[:, ::-1][:, :dimension]
    vectors[:, : found.shape[1]] = found
    roots = np.sqrt(counts)[:, None]
    return vectors * (roots > 0) / np.maximum(roots, 1.0), vectors * roots


def _gram_product(matrix: sparse.csr_matrix, vectors: Vectors) -> Vectors:
    """Return the product of the transposed matrix, the matrix and the vectors."""
    total = np.zeros(vectors.shape, np.float32)
    step = max(1, _CELLS_PER_CHUNK // max(vectors.shape[1], 1))
    for first in range(0, matrix.shape[0], step):
        part = matrix[first : first + step]
        total += part.T @ (part @ vectors)
    return total
