"""Linear baselines: truncated SVD and EASE, which score candidates by a matrix."""

from dataclasses import InitVar, dataclass

import numpy as np
from scipy import linalg, sparse

from components.retrieval_evaluator.baselines.interface import (
    Histories,
    LinearScores,
    Scores,
    TrainingEvents,
)
from models.ranking.cooccurrence import binary
from models.truncated_svd import truncated_svd

# Bounds memory: the numbers of the candidates' vectors in the SVD.
_MAX_CELLS = 64_000_000


@dataclass(eq=False)
class TruncatedSVD:
    """Baseline that projects histories onto the first singular vectors of the training events.

    It ignores the order of events and repeats, as does a model with `model.kind: svd`.

    Attributes:
        popularity: Popularity scores, which break ties.
        dimension: Number of singular vectors. By default, one for 50 candidates, from 32 to 256;
            fewer if the catalogue has more than 250,000.
    """

    training: InitVar[TrainingEvents]
    popularity: Scores
    # Measured, hit_rate@10: MovieLens 100K (1,682 candidates, random split) .165 with 32 and .115
    # with 256.
    dimension: int | None = None

    def __post_init__(self, training: TrainingEvents) -> None:
        size = training.num_candidates
        chosen = max(32, min(256, size // 50, _MAX_CELLS // max(size, 1)))
        dimension = self.dimension or chosen
        self._vectors = truncated_svd(training.candidates, training.offsets, size, dimension)

    def scores(self, histories: Histories) -> LinearScores:
        """Return the scores of all candidates for each history."""
        return LinearScores(
            _binary(histories, len(self.popularity)), *self._vectors, self.popularity
        )


@dataclass(eq=False)
class EASE:
    """Baseline that predicts events by a linear model of the others, in closed form.

    Time grows with the third power of the catalogue's size, and memory with the second.

    Attributes:
        popularity: Popularity scores, which break ties.
        regularization: Weight of the squared coefficients.

    References:
        Steck. Embarrassingly Shallow Autoencoders for Sparse Data. WWW 2019.
    """

    training: InitVar[TrainingEvents]
    popularity: Scores
    regularization: float = 100.0

    def __post_init__(self, training: TrainingEvents) -> None:
        shape = training.num_timelines, training.num_candidates
        events = binary(training.timeline_of, training.candidates, shape)
        gram = (events.T @ events).toarray().astype(np.float32)
        gram[np.diag_indices_from(gram)] += self.regularization
        # A third of the time of a general inverse, because the matrix is symmetric.
        inverse, _ = linalg.lapack.spotri(linalg.cholesky(gram, lower=True), lower=True)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        self._weights = inverse / -np.diag(inverse)
        np.fill_diagonal(self._weights, 0.0)

    def scores(self, histories: Histories) -> LinearScores:
        """Return the scores of all candidates for each history."""
        size = len(self.popularity)
        return LinearScores(_binary(histories, size), self._weights, None, self.popularity)


def _binary(histories: Histories, num_candidates: int) -> sparse.csr_matrix:
    known = histories.events >= 0
    shape = (histories.num_queries, num_candidates)
    return binary(histories.rows[known], histories.events[known], shape)
