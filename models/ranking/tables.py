"""The counts of training events that the features of the ranking stage are computed from."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy import sparse

from models.ranking.cooccurrence import largest_of_rows, similar_in_parts, successors_in_parts

Ints = npt.NDArray[np.int64]
Neighbours = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

# More neighbours did not help: 17 MB with 43,000 candidates.
_NUM_NEIGHBOURS = 50
_WINDOW = 10
# Exponent of the popularity that divides a rule, as in the baseline.
_RULES_POWER = 0.25
_SHRINKAGE = 10.0
# Pairs are only counted in about this many newest events; five million take a minute.
_MAX_EVENTS = 5_000_000
# "Recent" is the newest twentieth of the events.
_RECENT_SHARE = 0.05
# Candidates without events have the age of an event in the middle.
_UNKNOWN_AGE = 0.5


@dataclass(frozen=True)
class TrainingEvents:
    """Training timelines, concatenated, with candidates as indices.

    Attributes:
        candidates: Candidate of each event, oldest first within a timeline `[num_events]`.
        times: Time of each event in epoch seconds `[num_events]`.
        offsets: Start of each timeline, then the end `[num_timelines + 1]`.
    """

    candidates: Ints
    times: Ints
    offsets: Ints

    def where(self, is_kept: npt.NDArray[np.bool_]) -> "TrainingEvents":
        """Return the events of a mask `[num_events]`."""
        offsets = np.concatenate(([0], np.cumsum(is_kept)))[self.offsets]
        return TrainingEvents(self.candidates[is_kept], self.times[is_kept], offsets)

    def newest(self, max_events: int) -> "TrainingEvents":
        """Return the timelines that ended last, with about `max_events` events."""
        if len(self.candidates) <= max_events:
            return self
        lengths = np.diff(self.offsets)
        ends = np.where(lengths > 0, self.times[np.maximum(self.offsets[1:] - 1, 0)], 0)
        order = np.argsort(-ends, kind="stable")
        kept = np.zeros(len(lengths), bool)
        kept[order[np.cumsum(lengths[order]) <= max_events]] = True
        return self.where(np.repeat(kept, lengths))


@dataclass(frozen=True)
class RankingTables:
    """Counts of candidates and pairs, in the order of the vocabulary or of a catalogue.

    Neighbours are candidate indices, sorted by value, and -1 for missing ones.

    Attributes:
        popularity: log(1 + number of events) `[num_candidates]`.
        recent: log(1 + number of recent events), scaled to the length of all `[num_candidates]`.
        age: Share of all events that are newer than the candidate's first one `[num_candidates]`.
        idle: Share of all events that are newer than the candidate's last one `[num_candidates]`.
        successors, successor_values: Candidates that follow, and log(1 + their weight), discounted
            by their popularity `[num_candidates, n]`.
        similar, similar_values: Candidates in the same timelines, and their cosine similarity
            `[num_candidates, n]`.
    """

    popularity: Floats
    recent: Floats
    age: Floats
    idle: Floats
    successors: Neighbours
    successor_values: Floats
    similar: Neighbours
    similar_values: Floats

    @classmethod
    def count(
        cls,
        events: TrainingEvents,
        num_candidates: int,
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> "RankingTables":
        """Count the training events of a mask, by default all.

        Candidates outside `0 … num_candidates - 1` are left out.
        """
        counted = (events.candidates >= 0) & (events.candidates < num_candidates)
        if mask is not None:
            counted &= mask
        if not counted.all():
            events = events.where(counted)
        over_time = _over_time(events, num_candidates)
        counts = np.bincount(events.candidates, minlength=num_candidates)
        events = events.newest(_MAX_EVENTS)
        pairs = events.candidates, events.offsets, num_candidates
        successors, successor_values = _nearest(num_candidates, _rules(*pairs, counts))
        similar, similar_values = _nearest(
            num_candidates, similar_in_parts(*pairs, _NUM_NEIGHBOURS, _SHRINKAGE)
        )
        return cls(
            popularity=np.log1p(counts).astype(np.float32),
            **over_time,
            successors=successors,
            successor_values=successor_values,
            similar=similar,
            similar_values=similar_values,
        )

    def reordered(self, old_of_new: Ints) -> "RankingTables":
        """Return the tables for another catalogue.

        Args:
            old_of_new: The index in these tables of each candidate of the catalogue; -1 for
                candidates that the tables lack `[num_new]`.
        """
        new_of_old = np.full(len(self.popularity) + 1, -1, np.int32)  # the last is for -1
        new_of_old[old_of_new[old_of_new >= 0]] = np.flatnonzero(old_of_new >= 0)
        missing = {"age": _UNKNOWN_AGE, "idle": _UNKNOWN_AGE, "successors": -1, "similar": -1}

        def moved(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            if name in ("successors", "similar"):
                values = new_of_old[values]
            filler = np.full((1, *values.shape[1:]), missing.get(name, 0.0), values.dtype)
            taken: npt.NDArray[Any] = np.concatenate([values, filler])[old_of_new]
            return taken

        return RankingTables(**{name: moved(name, of) for name, of in vars(self).items()})

    def save(self, path: str) -> None:
        """Write the tables to a file."""
        save_arrays(path, vars(self))

    @classmethod
    def load(cls, path: str) -> "RankingTables":
        """Read the tables from a file."""
        arrays = load_arrays(path)
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def _over_time(events: TrainingEvents, num_candidates: int) -> dict[str, Floats]:
    """Return the columns `recent`, `age` and `idle` of the tables."""
    number = len(events.candidates)
    by_time = events.candidates[np.argsort(events.times, kind="stable")]
    num_recent = max(1, int(number * _RECENT_SHARE))
    recent = np.bincount(by_time[-num_recent:], minlength=num_candidates)
    first = np.full(num_candidates, number * (1.0 - _UNKNOWN_AGE))
    last = first.copy()
    # Of several assignments to one index, NumPy keeps the last.
    last[by_time] = np.arange(number)
    first[by_time[::-1]] = np.arange(number)[::-1]
    columns = {
        "recent": np.log1p(recent * (number / num_recent)),
        "age": 1.0 - first / max(number, 1),
        "idle": 1.0 - last / max(number, 1),
    }
    return {name: column.astype(np.float32) for name, column in columns.items()}


def _rules(
    candidates: Ints, offsets: Ints, num_candidates: int, counts: Ints
) -> Iterator[tuple[int, sparse.csr_matrix]]:
    """Yield the values of the successors of each candidate in parts, with their first row."""
    discounts = np.maximum(counts, 1).astype(np.float32) ** -_RULES_POWER
    for first, rules in successors_in_parts(candidates, offsets, num_candidates, _WINDOW):
        rows = first + np.repeat(np.arange(rules.shape[0]), np.diff(rules.indptr))
        rules.data = np.log1p(rules.data * discounts[rules.indices]) * (rows != rules.indices)
        rules.eliminate_zeros()
        yield first, rules


def _nearest(
    num_candidates: int, parts: Iterable[tuple[int, sparse.csr_matrix]]
) -> tuple[Neighbours, Floats]:
    """Return the neighbours of each candidate and their values (`largest_of_rows`)."""
    neighbours = np.full((num_candidates, _NUM_NEIGHBOURS), -1, np.int32)
    values = np.zeros(neighbours.shape, np.float32)
    for first, part in parts:
        rows = slice(first, first + part.shape[0])
        neighbours[rows], values[rows] = largest_of_rows(part, _NUM_NEIGHBOURS)
    return neighbours, values


def save_arrays(path: str, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write arrays by name to a local or remote file."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(content.getvalue())


def load_arrays(path: str) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file by name."""
    with tf.io.gfile.GFile(path, "rb") as file, np.load(io.BytesIO(file.read())) as arrays:
        return dict(arrays)
