"""Several devices compute what one device computes from the whole batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.config import ModelConfig, TrainingConfig
from models.errors import ClusterError, WorkerFailedError
from models.features.spec import FeatureSpec
from models.input.timeline_dataset import TimelineDataset
from models.training.distribution import ARGUMENTS_FILE, fit_as_chief, read_task
from models.training.trainer import TRAINER_KEY, TrainerConfig

ROOT = Path(__file__).resolve().parents[3]
SEED = 42
# Without dropout per row, the result does not depend on which device gets a row. With plain
# gradient descent, a wrong gradient has a proportional effect.
TRAINING = {
    "epochs": 2,
    "optimizer": "sgd",
    "learning_rate": 0.5,
    "schedule": "constant",
    "warmup_fraction": 0,
    "history_dropout": 1e-9,
    "feature_dropout": 0,
    "loss": "sampled_softmax",
    "num_negatives": 16,
    "validation_fraction": 0.2,
    "seed": SEED,
}


def cluster(size: int) -> list[dict[str, str]]:
    """Return the environment of each worker, with free ports."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(size)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in held]
    return [
        {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            )
        }
        for index in range(size)
    ]


def start(module: str, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-2000:]


@pytest.fixture(scope="module")
def results(communities: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the loss of each epoch and the weights, by kind of fit."""
    folder = tmp_path_factory.mktemp("fits")
    fitted = TimelineDataset(communities.files, communities.spec, 1, 0.2, SEED).num_timelines
    # The last step has one timeline, so the second device has none.
    training = json.dumps({**TRAINING, "batch_size": fitted - 1})
    one, other = cluster(2)

    def probe(
        name: str, strategy: str, devices: int, training: str = training, **environment: str
    ) -> subprocess.Popen[str]:
        (folder / name).mkdir(exist_ok=True)
        arguments = (communities.files[0], folder / name, strategy, str(devices), training)
        return start("tests.models.training.fit_probe", *arguments, **environment)

    processes = {
        "alone": probe("alone", "none", 1),
        "mirrored": probe("mirrored", "mirrored", 2),
        "first worker": probe("first worker", "multi_worker", 1, **one),
        "second worker": probe("second worker", "multi_worker", 1, **other),
    }
    # As if the process had been killed after its first epoch.
    half = json.dumps({**json.loads(training), "epochs": 1, "checkpoint_every_s": 0})
    finish(probe("resumed", "mirrored", 2, half))
    processes["resumed"] = probe("resumed", "mirrored", 2)
    found = {}
    for name, process in processes.items():
        finish(process)
        result = json.loads((folder / name / "result.json").read_text())
        found[name] = {**result, "weights": dict(np.load(folder / name / "weights.npz"))}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mirrored", "first worker", "second worker"])
def test_two_devices_learn_what_one_learns_from_the_joint_batch(results: dict[str, Any], kind: str):
    alone, together = results["alone"], results[kind]
    assert (alone["replicas"], together["replicas"]) == (1, 2)
    # Timelines differ in length, so a mean of means would differ.
    assert set(together["logs"]) == {"loss", "val_loss"}
    for name, losses in together["logs"].items():
        assert losses == pytest.approx(alone["logs"][name], rel=1e-5)
    assert set(together["weights"]) == set(alone["weights"])
    for name, weights in alone["weights"].items():
        np.testing.assert_allclose(together["weights"][name], weights, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_a_mirrored_fit_resumes_from_its_checkpoint(results: dict[str, Any]):
    whole, resumed = results["mirrored"], results["resumed"]
    assert resumed["logs"] == {name: losses[1:] for name, losses in whole["logs"].items()}
    for name, weights in whole["weights"].items():
        np.testing.assert_array_equal(resumed["weights"][name], weights, name)


@pytest.mark.slow
def test_only_the_chief_exports(
    transformed: Any, raw_spec: FeatureSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoints = tmp_path / "checkpoints"
    config = TrainerConfig(
        spec=raw_spec,
        model=ModelConfig(dimension=4),
        training=TrainingConfig(epochs=1, batch_size=4, strategy="multi_worker"),
        checkpoint_dir=str(checkpoints),
        code_hash="",
    )
    arguments = {
        "train_files": transformed.timeline_files,
        "eval_files": transformed.catalogue_files,
        "transform_output": transformed.directory,
        "serving_model_dir": str(tmp_path / "export"),
        "model_run_dir": str(tmp_path / "log"),
        "custom_config": {TRAINER_KEY: config.model_dump(mode="json")},
    }
    chief, worker = cluster(2)
    monkeypatch.setenv("TF_CONFIG", chief["TF_CONFIG"])
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            fit_as_chief(arguments, checkpoints)
        except BaseException as error:  # reported by the main thread
            failures.append(error)

    thread = threading.Thread(target=fit)
    thread.start()
    path = checkpoints / ARGUMENTS_FILE
    deadline = time.monotonic() + 30
    while not path.exists() and thread.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # The other worker gets another folder, which must stay empty.
    passed = tmp_path / "passed.json"
    elsewhere = {**json.loads(path.read_text()), "serving_model_dir": str(tmp_path / "elsewhere")}
    passed.write_text(json.dumps(elsewhere))
    finish(start("models.training.multi_worker", "--arguments", passed, **worker))
    thread.join(timeout=240)
    assert failures == []
    assert (tmp_path / "export" / "saved_model.pb").exists()
    assert not (tmp_path / "elsewhere").exists()
    assert not path.exists()


def test_a_failed_chief_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TF_CONFIG", cluster(1)[0]["TF_CONFIG"])
    monkeypatch.setattr("models.training.distribution._WORKER_MODULE", "models.no_such_module")
    with pytest.raises(WorkerFailedError, match="exit code 1"):
        fit_as_chief({}, tmp_path)
    assert not (tmp_path / ARGUMENTS_FILE).exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "{}",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
    ],
)
def test_an_incomplete_cluster_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ClusterError, match="TF_CONFIG"):
        read_task()


@pytest.mark.parametrize(
    ("tasks", "kind", "index", "chief"),
    [
        ({"worker": ["a:1", "b:1"]}, "worker", 0, True),
        ({"worker": ["a:1", "b:1"]}, "worker", 1, False),
        ({"chief": ["a:1"], "worker": ["b:1"]}, "chief", 0, True),
        ({"chief": ["a:1"], "worker": ["b:1"]}, "worker", 0, False),
    ],
)
def test_one_task_is_the_chief(
    tasks: dict[str, list[str]],
    kind: str,
    index: int,
    chief: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    config = {"cluster": tasks, "task": {"type": kind, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert read_task().is_chief is chief
    if not chief:
        with pytest.raises(ClusterError, match="must run as the chief"):
            fit_as_chief({}, tmp_path)
