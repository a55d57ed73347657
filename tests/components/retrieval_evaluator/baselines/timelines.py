"""Builders of timelines written as words: each letter is a candidate, a is 0."""

from collections.abc import Sequence

import numpy as np

from components.retrieval_evaluator.baselines.interface import Histories, TrainingEvents


def indices(word: str) -> list[int]:
    return [-1 if letter == "?" else ord(letter) - ord("a") for letter in word]


def trained_on(timelines: Sequence[str], num_candidates: int) -> TrainingEvents:
    """Return training events in which each timeline starts after the one before it."""
    events = np.array([event for word in timelines for event in indices(word)], np.int64)
    return TrainingEvents(
        num_candidates=num_candidates,
        counts=np.bincount(events, minlength=num_candidates),
        candidates=events,
        offsets=np.cumsum([0, *(len(word) for word in timelines)]),
        times=np.arange(len(events)),
    )


def histories_of(histories: Sequence[str]) -> Histories:
    rows = [row for row, word in enumerate(histories) for _ in word]
    events = [event for word in histories for event in indices(word)]
    return Histories(len(histories), np.array(rows, np.int64), np.array(events, np.int64))


def ranking(scores: np.ndarray) -> list[str]:
    """Return the candidates of each row, best first."""
    letters = [np.argsort(-row, kind="stable") for row in scores]
    return ["".join(chr(ord("a") + index) for index in row) for row in letters]
