"""Metrics of slices of the events: by kind of query or candidate, by repeat, by feature value."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.retrieval_evaluator.event_results import EventResults
from components.retrieval_evaluator.metrics import EVENT_METRICS, RankMetrics

Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.object_]

# Maximum number of feature values with their own slice; rarer values share one.
_MAX_VALUES = 20
# Share of the catalogue that counts as its head.
_HEAD_SHARE = 0.2


def slice_labels(
    results: EventResults, train_counts: Ints, known_queries: frozenset[bytes]
) -> dict[str, Labels]:
    """Return the value of each event by slice; `known_queries` have training events."""
    columns, targets = results.columns, results.columns["target"]
    known = np.array([query in known_queries for query in columns["query_id"]], bool)
    labels = {
        "query": np.where(known, "known", "new").astype(object),
        "candidate": candidate_labels(targets, train_counts),
        "popularity": popularity_labels(targets, train_counts),
        "repeat": np.where(columns["is_repeat"], "repeat", "new").astype(object),
    }
    if "event_type" in columns:
        labels["event type"] = feature_labels(columns["event_type"])
    for name, values in results.features().items():
        labels[f"feature {name}"] = feature_labels(values)
    return labels


def popularity_labels(targets: Ints, train_counts: Ints) -> Labels:
    """Return "head" for targets among the most popular fifth of the catalogue, else "tail"."""
    number = int(np.ceil(_HEAD_SHARE * len(train_counts)))
    is_head = np.zeros(len(train_counts) + 1, bool)  # the last: outside the catalogue
    is_head[np.argsort(-train_counts, kind="stable")[:number]] = True
    is_head[:-1] &= train_counts > 0
    return np.where(is_head[targets], "head", "tail").astype(object)


def candidate_labels(targets: Ints, train_counts: Ints) -> Labels:
    """Return "warm" for targets with training events, "unknown" for -1, else "cold"."""
    warm = np.append(train_counts > 0, False)[targets]
    return np.select([targets < 0, warm], ["unknown", "warm"], "cold").astype(object)


def feature_labels(values: Labels) -> Labels:
    """Return the values of a feature as text, with labels for missing and rare values."""
    text = np.array([value.decode("utf-8", "replace") for value in values], object)
    text[text == ""] = "(missing)"
    counts = Counter(text.tolist())
    kept = set(sorted(counts, key=lambda value: (-counts[value], value))[:_MAX_VALUES])
    is_kept = np.array([value in kept for value in text], bool)
    return np.where(is_kept, text, "(other)").astype(object)


def slice_metrics(
    labels: Mapping[str, Labels], measured: Mapping[str, RankMetrics], ks: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Return event metrics by ranker, and event and query counts, for each slice and value."""
    names = [f"{metric}@{k}" for k in ks for metric in EVENT_METRICS]
    found: dict[str, dict[str, Any]] = {}
    for slice_name, label in labels.items():
        found[slice_name] = {}
        for value in sorted(set(label.tolist())):
            events = np.flatnonzero(label == value)
            parts = {ranker: metrics.part(events) for ranker, metrics in measured.items()}
            found[slice_name][value] = {
                "num_events": len(events),
                "num_queries": next(iter(parts.values())).num_queries,
                "metrics": {ranker: part.values(names) for ranker, part in parts.items()},
            }
    return found
