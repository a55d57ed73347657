"""Tuning in a real run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.two_clubs import Command, run_to_summary, write_two_clubs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, two_tower: Command
) -> tuple[Path, dict[str, Any]]:
    config = write_two_clubs(
        tmp_path_factory.mktemp("searched"),
        training={"epochs": 6, "schedule": "constant"},
        tuning={
            "enabled": True,
            "max_trials": 3,
            "metric": "ndcg@10",
            "holdout_fraction": 0.3,
            # The second learns nothing.
            "space": {"training.learning_rate": [0.02, 1.0e-6, 0.005]},
        },
    )
    return config, run_to_summary(two_tower, config)


def test_the_best_trial_decides(
    searched: tuple[Path, dict[str, Any]],
):
    _, summary = searched
    trials = {t["values"]["training.learning_rate"]: t for t in summary["tuning"]["trials"]}
    assert summary["tuning"]["metric"] == "ndcg@10"
    assert trials[0.02]["score"] > trials[1e-6]["score"] + 0.1
    best = max(trials, key=lambda rate: trials[rate]["score"])
    assert summary["tuning"]["best"] == {"training.learning_rate": best}
    assert summary["metrics"]["model"]["hit_rate@10"] > 0.4


def test_the_best_values_are_a_configuration_that_gives_the_same_model(
    searched: tuple[Path, dict[str, Any]], two_tower: Command
):
    config, summary = searched
    tuned = Path(summary["tuned_config"])
    assert tuned.parent.parent == config.parent.parent / "runs" / "clubs"
    content = yaml.safe_load(tuned.read_text())
    best = summary["tuning"]["best"]["training.learning_rate"]
    assert content["training"]["learning_rate"] == best
    assert content["training"]["epochs"] == 6
    assert "dropout" not in str(content)  # settings that nobody changed stay absent
    again = run_to_summary(two_tower, tuned)
    assert "Tuner" not in again["component_states"]
    assert again["component_states"]["Transform"] == "cached"
    assert again["metrics"]["model"] == summary["metrics"]["model"]


def test_a_repeated_search_is_cached(searched: tuple[Path, dict[str, Any]], two_tower: Command):
    config, summary = searched
    again = run_to_summary(two_tower, config)
    assert again["component_states"]["Tuner"] == again["component_states"]["Trainer"] == "cached"
    assert again["tuning"] == summary["tuning"]
    assert again["tuned_config"] == summary["tuned_config"]
