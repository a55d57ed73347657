"""Early stopping on validation timelines, also across a restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.training.checkpoints_and_early_stopping import FitState
from tests.models.fitting import Fitting, KilledError, assert_equal, kill_after

EARLY: dict[str, Any] = {
    # A rate at which the loss soon rises again.
    "learning_rate": 0.3,
    "epochs": 30,
    "validation_fraction": 0.3,
    "early_stopping_patience": 3,
    "checkpoint_every_s": 0,
    # One validation batch: its loss is that of the whole validation set.
    "batch_size": 64,
}


@pytest.fixture
def validation_losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    losses: list[float] = []
    end_of_epoch = FitState.on_epoch_end

    def ended(state: FitState, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        losses.append(logs["val_loss"])
        end_of_epoch(state, epoch, logs)

    monkeypatch.setattr(FitState, "on_epoch_end", ended)
    return losses


def validation_loss(run: Fitting) -> float:
    (batch,) = run.timelines.validation()
    return float(run.model.compute_loss(batch))


def test_early_stopping_ends_at_the_best_weights(
    fitting: Callable[..., Fitting], validation_losses: list[float]
):
    run = fitting(**EARLY)
    run.fit()
    assert len(validation_losses) < 30
    best = int(np.argmin(validation_losses))
    assert len(validation_losses) == best + 1 + 3
    assert validation_loss(run) == pytest.approx(validation_losses[best], rel=1e-5)


def test_a_metric_may_stop_the_fit_instead_of_the_loss(fitting: Callable[..., Fitting]):
    run = fitting(**EARLY)
    seen: list[list[np.ndarray]] = []

    def measure() -> float:
        seen.append(run.weights)
        return [0.1, 0.7, 0.3, 0.69, 0.68, 0.2, 0.1][len(seen) - 1]

    state = run.fit(measure)
    values = [0.1, 0.7, 0.3, 0.69, 0.68, 0.2, 0.1]
    assert [epoch["validation_metric"] for epoch in state.history] == values
    assert len(seen) == 7
    # The fourth is as good as the second, by less than 2%. The fifth is not.
    assert_equal(run.weights, seen[3])
    assert (state.best_epoch, state.epochs_done) == (4, 7)


@pytest.mark.slow
def test_early_stopping_survives_a_kill(
    fitting: Callable[..., Fitting], validation_losses: list[float], monkeypatch: pytest.MonkeyPatch
):
    whole = fitting("whole", **EARLY)
    whole.fit()
    uninterrupted = list(validation_losses)
    validation_losses.clear()
    # After the best epoch, while patience runs out.
    killed_after = len(uninterrupted) - 1
    with monkeypatch.context() as patched:
        kill_after(killed_after, patched)
        with pytest.raises(KilledError):
            fitting("killed", **EARLY).fit()
    resumed = fitting("killed", **EARLY, initial_seed=999)
    resumed.fit()
    assert validation_losses == pytest.approx(uninterrupted, rel=0, abs=0)
    assert_equal(resumed.weights, whole.weights)
    # A run that has stopped stays stopped.
    again = fitting("killed", **EARLY, initial_seed=998)
    again.fit()
    assert len(validation_losses) == len(uninterrupted)
    assert_equal(again.weights, whole.weights)
