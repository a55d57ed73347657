"""Metrics of some of the held-out events: where a model is good and where it is not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.retrieval_evaluator.metrics import EVENT_METRICS, RankMetrics

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.object_]

# Values of a feature with slices of their own; the rarer ones are one slice together.
_MOST_VALUES = 20
# The most popular share of the catalogue.
_HEAD_SHARE = 0.2


def popularity_labels(targets: Ints, train_counts: Ints) -> Labels:
    """Returns head for targets among the most popular fifth of the catalogue, else tail."""
    number = int(np.ceil(_HEAD_SHARE * len(train_counts)))
    is_head = np.zeros(len(train_counts) + 1, bool)  # the last: not in the catalogue
    is_head[np.argsort(-train_counts, kind="stable")[:number]] = True
    is_head[:-1] &= train_counts > 0
    return np.where(is_head[targets], "head", "tail").astype(object)


def candidate_labels(targets: Ints, train_counts: Ints) -> Labels:
    """Returns warm for targets with training events, else cold, or unknown to the catalogue."""
    warm = np.append(train_counts > 0, False)[targets]
    return np.select([targets < 0, warm], ["unknown", "warm"], "cold").astype(object)


def feature_labels(values: Labels) -> Labels:
    """Returns the values of a feature as text, missing and rare ones under names of their own."""
    text = np.array([value.decode("utf-8", "replace") for value in values], object)
    text[text == ""] = "(missing)"
    names, counts = np.unique(text.astype(str), return_counts=True)
    kept = names[np.argsort(-counts, kind="stable")[:_MOST_VALUES]]
    return np.where(np.isin(text.astype(str), kept), text, "(other)").astype(object)


def slice_metrics(
    labels: Mapping[str, Labels],
    ranks: Mapping[str, Ints],
    questions: Ints,
    queries: Ints,
    ks: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """Returns metrics over events, by slice by value: how many events and queries, and contenders.

    Args:
        labels: Value of each event, by slice [num_events].
        ranks: Of each event, by contender [num_events].
        questions: Number of each event's question [num_events].
        queries: Number of each event's query [num_events].
        ks: Cut-offs.
    """
    found: dict[str, dict[str, Any]] = {}
    names = [f"{metric}@{k}" for k in ks for metric in EVENT_METRICS]
    for slice_name, label in labels.items():
        found[slice_name] = {}
        for value in sorted(set(label.tolist())):
            of = np.flatnonzero(label == value)
            metrics = {}
            for contender, rank in ranks.items():
                measured = RankMetrics(rank[of], questions[of], queries[of])
                metrics[contender] = {name: measured.value(name) for name in names}
            found[slice_name][value] = {
                "num_events": len(of),
                "num_queries": len(np.unique(queries[of])),
                "metrics": metrics,
            }
    return found
