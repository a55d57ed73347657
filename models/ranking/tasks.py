"""The tasks of the ranker beside the next event: what an event with a candidate would be like."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.features.spec import EVENT_TYPE_KEY, RATING_KEY
from models.ranking.config import TaskConfig
from models.ranking.estimates import Estimates

Floats = npt.NDArray[np.float32]

# Features of each task, after its name.
_OF_TASK = {
    "": "estimate of the task from a bias of the query, a bias of the candidate, and their factors",
    "_query": "estimate of the task from the bias of the query",
    "_candidate": "estimate of the task from the bias of the candidate",
}
_LEAST_PROBABILITY = 1e-3


class Task(TaskConfig):
    """A task with the moments and limits of its labels in training."""

    name: str
    mean: float = 0.0
    scale: float = 1.0
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, name: str, config: TaskConfig, labels: Floats) -> "Task":
        """Return the task with the moments of `labels` `[num_events]`, NaN if an event has none."""
        known = labels[np.isfinite(labels)]
        if config.loss == "binary" or not len(known):
            return cls(name=name, **config.model_dump())
        return cls(
            name=name,
            **config.model_dump(),
            mean=float(known.mean()),
            scale=max(float(known.std()), 1e-6),
            low=float(known.min()),
            high=float(known.max()),
        )

    def served(self, outputs: tf.Tensor) -> tf.Tensor:
        """Convert outputs of the ranker to what is served: a rating, a time or a probability."""
        if self.loss == "binary":
            return tf.sigmoid(outputs)
        outputs = tf.clip_by_value(outputs, self.low, self.high)
        return tf.math.expm1(outputs) if self.loss == "squared_log_error" else outputs

    def standard(self, outputs: tf.Tensor) -> tf.Tensor:
        """Convert outputs of the ranker to what is added to the scores."""
        return outputs if self.loss == "binary" else (outputs - self.mean) / self.scale

    def losses(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Return the loss of each output; `labels` must be known."""
        if self.loss == "binary":
            return tf.nn.sigmoid_cross_entropy_with_logits(labels, outputs)
        return tf.square((outputs - labels) / self.scale)


def label_key(task: TaskConfig) -> str:
    """Return the key of Examples that has the labels."""
    return EVENT_TYPE_KEY if task.loss == "binary" else task.column or RATING_KEY


def label_types(tasks: Iterable[TaskConfig]) -> dict[str, tf.DType]:
    """Return the keys of Examples that have the labels of tasks, and their types."""
    keys = {label_key(task) for task in tasks}
    return {key: tf.string if key == EVENT_TYPE_KEY else tf.float32 for key in sorted(keys)}


def labels_of(task: TaskConfig, values: npt.NDArray[Any]) -> Floats:
    """Return the labels of events: numbers, their logarithms, or whether they have the type.

    `values` are ratings or other numbers, or event types as bytes; a missing number is NaN.
    """
    labels: Floats
    if task.event_type is not None:
        labels = (values == task.event_type.encode()).astype(np.float32)
    elif task.loss == "squared_log_error":
        labels = np.log1p(np.maximum(values, 0.0)).astype(np.float32)
    else:
        labels = values.astype(np.float32)
    return labels


class TaskFeatures(tf.Module):
    """Computes features from the estimates of tasks.

    Args:
        tasks: The tasks.
        estimates: Their estimates by name, whose candidates have the indices of the ranking stage.
        query_id: Key of the index of a query.
    """

    def __init__(
        self, tasks: Sequence[Task], estimates: Mapping[str, Estimates], query_id: str
    ) -> None:
        super().__init__()
        self.names = tuple(task.name + suffix for task in tasks for suffix in _OF_TASK)
        self._tasks, self._query_id = tasks, query_id
        self._means = [estimates[task.name].mean for task in tasks]
        self._queries, self._candidates = (
            [tf.Variable(getattr(estimates[task.name], side), trainable=False) for task in tasks]
            for side in ("queries", "candidates")
        )

    def __call__(self, known: Mapping[str, tf.Tensor], candidates: tf.Tensor) -> list[tf.Tensor]:
        """Return the features of candidates `[batch, n]`, three `[batch, n, 3]` for each task.

        `known` has the index of each query `[batch, 1]`; other numbers are unknown queries.
        """
        found = []
        for task, mean, queries, rows in zip(
            self._tasks, self._means, self._queries, self._candidates, strict=True
        ):
            unknown = queries.shape[0] - 1
            index = known[self._query_id][:, 0]
            index = tf.where((index >= 0) & (index < unknown), index, unknown)
            of_query = tf.gather(queries.read_value(), index)[:, None, :]
            of_candidate = tf.gather(rows.read_value(), candidates)
            product = tf.reduce_sum(of_query[..., 1:] * of_candidate[..., 1:], axis=2)
            biases = [mean + of_query[..., 0], mean + of_candidate[..., 0]]
            values = [biases[0] + biases[1] - mean + product, *biases]
            values[1] = tf.broadcast_to(values[1], tf.shape(product))
            if task.loss == "binary":
                values = [_logit(value) for value in values]
            found.append(tf.stack(values, axis=2))
        return found


def _logit(probability: tf.Tensor) -> tf.Tensor:
    clipped = tf.clip_by_value(probability, _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
    return tf.math.log(clipped / (1.0 - clipped))
