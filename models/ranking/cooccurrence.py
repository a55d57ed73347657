"""Co-occurrence of candidates in timelines: sequential rules and item-kNN.

Timelines are concatenated: `candidates` `[num_events]` has the candidate index of each event,
oldest first within a timeline, and `offsets` `[num_timelines + 1]` the starts and the end.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]

# The number of pairs in a timeline grows with the square of its length.
_NEWEST_EVENTS_PER_TIMELINE = 500
# Bounds memory: co-occurrences computed at a time, before all but the nearest are dropped.
_PAIRS_PER_CHUNK = 5_000_000


def count_successors(
    candidates: Ints, offsets: Ints, num_candidates: int, window: int
) -> sparse.csr_matrix:
    """Count pairs (a, b) with b at most `window` events after a, weighted by 1 / distance.

    References:
        Ludewig, Jannach. Evaluation of Session-based Recommendation Algorithms. UMUAI 2018.
    """
    timeline = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return _successors(candidates, timeline, range(num_candidates), num_candidates, window)


def successors_in_parts(
    candidates: Ints, offsets: Ints, num_candidates: int, window: int
) -> Iterator[tuple[int, sparse.csr_matrix]]:
    """Yield the rows of `count_successors` in parts of bounded size, with their first row."""
    timeline = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    for first, last in _chunks(np.bincount(candidates, minlength=num_candidates) * window):
        rows = range(first, last)
        yield first, _successors(candidates, timeline, rows, num_candidates, window)


def _successors(
    candidates: Ints, timeline: Ints, rows: range, num_candidates: int, window: int
) -> sparse.csr_matrix:
    """Return the rows of `count_successors` for some candidates."""
    shape = (len(rows), num_candidates)
    rules = sparse.csr_matrix(shape, dtype=np.float32)
    events = np.flatnonzero((candidates >= rows.start) & (candidates < rows.stop))
    for distance in range(1, window + 1):
        events = events[events + distance < len(candidates)]
        pairs = events[timeline[events + distance] == timeline[events]]
        before, after = candidates[pairs] - rows.start, candidates[pairs + distance]
        weights = np.full(len(pairs), 1.0 / distance, np.float32)
        rules = rules + sparse.csr_matrix((weights, (before, after)), shape=shape)
    return rules


def find_similar(
    candidates: Ints, offsets: Ints, num_candidates: int, neighbours: int, shrinkage: float
) -> sparse.csr_matrix:
    """Return the cosine similarities of each candidate's nearest neighbours by shared timelines.

    `shrinkage` is added to the product of the norms, to discount rare candidates.

    References:
        Sarwar, Karypis, Konstan, Riedl. Item-based Collaborative Filtering Recommendation
        Algorithms. WWW 2001.
    """
    found = similar_in_parts(candidates, offsets, num_candidates, neighbours, shrinkage)
    parts = [part for _, part in found]
    return sparse.vstack(parts).tocsr() if parts else sparse.csr_matrix((0, 0), dtype=np.float32)


def similar_in_parts(
    candidates: Ints, offsets: Ints, num_candidates: int, neighbours: int, shrinkage: float
) -> Iterator[tuple[int, sparse.csr_matrix]]:
    """Yield the rows of `find_similar` in parts of bounded size, with their first row."""
    timeline = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    kept = offsets[timeline + 1] - 1 - np.arange(len(timeline)) < _NEWEST_EVENTS_PER_TIMELINE
    occurrences = binary(timeline[kept], candidates[kept], (len(offsets) - 1, num_candidates))
    by_candidate = occurrences.T.tocsr()
    norms = np.sqrt(np.diff(by_candidate.indptr))
    for first, last in _chunks(by_candidate @ np.diff(occurrences.indptr)):
        counts = (by_candidate[first:last] @ occurrences).tocsr()
        yield first, _nearest(counts, norms, first, neighbours, shrinkage)


def binary(rows: Ints, columns: Ints, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Return a matrix with 1 at each given cell; a repeated cell counts once."""
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def largest_of_rows(
    matrix: sparse.csr_matrix, number: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return the columns and values of the largest entries of each row, `[num_rows, number]`.

    Rows are sorted by value, and ties go to the lower column. Missing entries have the column -1
    and the value 0.
    """
    columns = np.full((matrix.shape[0], number), -1, np.int32)
    values = np.zeros((matrix.shape[0], number), np.float32)
    for first, last in _chunks(np.diff(matrix.indptr)):
        part = matrix[first:last]
        rows = np.repeat(np.arange(last - first), np.diff(part.indptr))
        order = np.lexsort((part.indices, -part.data, rows))
        nth = np.arange(len(order)) - part.indptr[rows]
        kept = nth < number
        columns[first + rows[kept], nth[kept]] = part.indices[order[kept]]
        values[first + rows[kept], nth[kept]] = part.data[order[kept]]
    return columns, values


def _chunks(num_pairs: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Split the candidates into chunks (start, end) with a bounded number of co-occurrences."""
    chunk = (np.cumsum(num_pairs) // _PAIRS_PER_CHUNK).astype(np.int64)
    starts = np.flatnonzero(np.diff(chunk, prepend=-1))
    ends = np.append(starts[1:], len(num_pairs))
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def _nearest(
    counts: sparse.csr_matrix, norms: Floats, first: int, neighbours: int, shrinkage: float
) -> sparse.csr_matrix:
    """Return the similarities of each row's nearest candidates; ties go to the lower index."""
    lengths, columns = np.diff(counts.indptr), counts.indices
    rows = np.repeat(np.arange(counts.shape[0]), lengths)
    similarity = counts.data / (norms[rows + first] * norms[columns] + shrinkage)
    similarity[columns == rows + first] = 0.0  # the candidate itself
    kept = similarity > 0
    for row in np.flatnonzero(lengths > neighbours).tolist():
        entries = slice(counts.indptr[row], counts.indptr[row + 1])
        of_row = similarity[entries]
        # Sorting the whole row would take ten times as long.
        least = np.partition(of_row, -neighbours)[-neighbours]
        if least > 0:
            near = of_row >= least
            if (surplus := np.count_nonzero(near) - neighbours) > 0:
                tied = np.flatnonzero(of_row == least)
                near[tied[np.argsort(columns[entries][tied])][-surplus:]] = False
            kept[entries] = near
    offsets = np.append(0, np.cumsum(kept))[counts.indptr]
    data = similarity[kept].astype(np.float32)
    return sparse.csr_matrix((data, columns[kept], offsets), shape=counts.shape)
