"""Quality of the ranker's tasks on held-out events, compared with a mean and a model of biases."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from components.retrieval_evaluator.baselines.interface import IndexOf, Ints
from components.retrieval_evaluator.evaluation_queries import EvaluationQueries
from components.retrieval_evaluator.rankers import MODEL
from models.features.spec import FeatureSpec
from models.input.raw_examples import read_timelines
from models.ranking.estimates import Estimates
from models.ranking.tasks import Task, label_key, label_types, labels_of

Floats = npt.NDArray[np.floating[Any]]
# Returns the prediction of each task for each target of a block, NaN for unknown candidates.
Predict = Callable[[EvaluationQueries], dict[str, Floats]]

MEAN, BIAS = "mean", "bias"

_TIMELINES_PER_BATCH = 1024
_NUM_BINS = 10
_LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class TaskQuality:
    """Metrics of one task over held-out events whose label and candidate are known.

    Attributes:
        loss: `TaskConfig.loss`.
        metrics: By `MODEL`, `MEAN` (the mean label in training) and `BIAS` (plus a bias of the
            query and one of the candidate): `rmse`, of logarithms with squared_log_error, or with
            binary `auc` and `log_loss`; and `calibration_error`, the mean difference between
            predictions and labels in ten groups of similar predictions.
    """

    loss: str
    num_events: int
    metrics: dict[str, dict[str, float]]


@dataclass(frozen=True)
class _Events:
    """Labelled events: indices of queries and candidates, and labels `[num_events, num_tasks]`."""

    queries: Ints
    candidates: Ints
    labels: Floats


class TaskEvaluation:
    """Collects predictions of tasks, and measures them.

    Args:
        tasks: The tasks.
        train: Files of the training timelines.
        index_of: Function that returns the indices of candidates.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        train: Sequence[str],
        spec: FeatureSpec,
        index_of: IndexOf,
        num_candidates: int,
    ) -> None:
        self._tasks = tasks
        self._query_index: dict[bytes, int] = {}
        parts = []
        types = label_types(tasks)
        for timelines in read_timelines(train, spec, _TIMELINES_PER_BATCH, label_types=types):
            lengths = timelines.events.row_lengths().numpy()
            ids = timelines.inputs[spec.query_id].numpy().tolist()
            rows = [self._query_index.setdefault(name, len(self._query_index)) for name in ids]
            columns = {key: values.values.numpy() for key, values in timelines.labels.items()}
            candidates = index_of(timelines.events.values)
            parts.append((np.repeat(rows, lengths), candidates, _labels(tasks, columns)))
        training = _Events(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        self._num_candidates = num_candidates
        self._training = training

    def measure(
        self, blocks: Iterable[EvaluationQueries], predict: Predict
    ) -> dict[str, TaskQuality]:
        """Return the quality of each task by its name."""
        parts, predictions = [], []
        for block in blocks:
            found = predict(block)
            predictions.append(np.stack([found[task.name] for task in self._tasks], axis=1))
            ids = block.query_ids[block.target_rows].tolist()
            queries = np.array([self._query_index.get(name, -1) for name in ids], np.int64)
            parts.append((queries, block.targets, _labels(self._tasks, block.labels)))
        events = _Events(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        predicted = np.concatenate(predictions)
        return {
            task.name: self._quality(number, task, events, predicted[:, number])
            for number, task in enumerate(self._tasks)
        }

    def _quality(self, number: int, task: Task, events: _Events, predicted: Floats) -> TaskQuality:
        training = self._training
        labels = training.labels[:, number]
        known = np.isfinite(labels) & (training.candidates >= 0)
        bias = Estimates.fit(
            training.queries[known],
            training.candidates[known],
            labels[known],
            num_queries=len(self._query_index),
            num_candidates=self._num_candidates,
            num_factors=0,
        )
        is_measured = np.isfinite(events.labels[:, number]) & (events.candidates >= 0)
        labels = events.labels[is_measured, number]
        of_queries = bias.queries[events.queries[is_measured], 0]
        of_candidates = bias.candidates[events.candidates[is_measured], 0]
        if task.loss == "squared_log_error":
            predicted = np.log1p(predicted)
        predictions = {
            MODEL: predicted[is_measured],
            MEAN: np.full(len(labels), bias.mean),
            BIAS: bias.mean + of_queries + of_candidates,
        }
        measure = _classification if task.loss == "binary" else _regression
        metrics = {
            name: measure(of, labels) | {"calibration_error": _calibration_error(of, labels)}
            for name, of in predictions.items()
        }
        return TaskQuality(task.loss, len(labels), metrics)


def _labels(tasks: Sequence[Task], columns: Any) -> Floats:
    return np.stack([labels_of(task, columns[label_key(task)]) for task in tasks], axis=1)


def _regression(predicted: Floats, labels: Floats) -> dict[str, float]:
    return {"rmse": float(np.sqrt(np.mean((predicted - labels) ** 2)))}


def _classification(predicted: Floats, labels: Floats) -> dict[str, float]:
    """Return the area under the ROC curve, from the ranks of the positives, and the log loss."""
    is_positive = labels > 0.5
    num_positive = np.count_nonzero(is_positive)
    num_pairs = num_positive * (len(labels) - num_positive)
    wins = rankdata(predicted)[is_positive].sum() - num_positive * (num_positive + 1) / 2
    chances = np.clip(predicted, _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
    log_loss = -np.mean(np.where(is_positive, np.log(chances), np.log1p(-chances)))
    return {"auc": wins / num_pairs if num_pairs else float("nan"), "log_loss": float(log_loss)}


def _calibration_error(predicted: Floats, labels: Floats) -> float:
    order = np.argsort(predicted, kind="stable")
    differences = np.array_split((predicted - labels)[order], _NUM_BINS)
    return float(sum(abs(part.sum()) for part in differences) / max(len(labels), 1))
