"""The metrics of tasks, worked by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from components.retrieval_evaluator.rankers import MODEL
from components.retrieval_evaluator.task_quality import BIAS, MEAN, TaskEvaluation
from models.ranking.tasks import Task
from tests.builders import feature_spec, write_examples

IDS = [b"a", b"b", b"c"]
SPEC = feature_spec(rating="stars", event_type="kind")


def index_of(names: Any) -> np.ndarray:
    return np.array([IDS.index(name) if name in IDS else -1 for name in names.numpy()], np.int64)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    rows = [
        {
            "user": [user],
            "item": ["a", "b", "c"],
            "is_target": [0, 0, 0],
            "rating": [1.0, 3.0, 5.0],
            "event_type": ["view", "view", "buy"],
        }
        for user in ("u", "v")
    ]
    files = [write_examples(tmp_path_factory.mktemp("train"), rows)]
    tasks = [
        Task(name="rating"),
        Task(name="seconds", loss="squared_log_error"),
        Task(name="buy", loss="binary", event_type="buy"),
    ]
    # The candidate of the last event is unknown, and the second has no rating.
    block = SimpleNamespace(
        query_ids=np.array([b"u", b"new"], object),
        target_rows=np.array([0, 0, 1, 1, 1]),
        targets=np.array([0, 1, 1, 2, -1]),
        labels={
            "rating": np.array([2.0, np.nan, 4.0, 4.0, 1.0], np.float32),
            "event_type": np.array([b"buy", b"view", b"view", b"buy", b"buy"], object),
        },
    )
    predictions = {
        "rating": np.array([2.0, 3.0, 3.0, 5.0, np.nan]),
        "seconds": np.array([2.0, 3.0, 4.0, 4.0, np.nan]),
        "buy": np.array([0.6, 0.7, 0.1, 0.9, np.nan]),
    }
    evaluation = TaskEvaluation(tasks, files, SPEC, index_of, len(IDS))
    return evaluation.measure([block], lambda _: predictions)


def test_rmse_is_compared_with_the_mean_and_with_biases(measured: Any):
    quality = measured["rating"]
    assert quality.num_events == 3
    assert quality.metrics[MODEL]["rmse"] == pytest.approx(np.sqrt(2 / 3))
    assert quality.metrics[MEAN]["rmse"] == pytest.approx(1.0)
    assert quality.metrics[MODEL]["calibration_error"] == pytest.approx(2 / 3)
    # Their labels differ by candidate only, and the biases know it.
    assert quality.metrics[BIAS]["rmse"] == pytest.approx(1.0, abs=0.2)
    assert measured["seconds"].metrics[MODEL]["rmse"] == pytest.approx(0.0, abs=1e-6)


def test_auc_counts_the_pairs_in_the_right_order(measured: Any):
    quality = measured["buy"]
    assert quality.num_events == 4
    # Of the pairs (.6 and .9) × (.7 and .1), one is in the wrong order.
    assert quality.metrics[MODEL]["auc"] == pytest.approx(3 / 4)
    assert quality.metrics[MEAN]["auc"] == pytest.approx(1 / 2)
    log_loss = -np.log([0.6, 0.3, 0.9, 0.9]).mean()
    assert quality.metrics[MODEL]["log_loss"] == pytest.approx(log_loss)
