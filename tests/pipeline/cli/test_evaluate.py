"""`two-tower evaluate`, and whether the served model has the metrics that were measured."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pipeline.two_clubs import Command, write_two_clubs

pytestmark = pytest.mark.slow

KS = (1, 10)


@pytest.fixture(scope="module")
def rolling(finished_run: dict[str, Any], two_tower: Command) -> dict[str, Any]:
    """Evaluate the pushed version with another protocol than the run."""
    version = Path(finished_run["serving_dir"]) / str(finished_run["pushed_version"])
    config = str(finished_run["config_path"])
    done = two_tower(
        "evaluate", "--config", config, "--model", str(version), "--protocol", "rolling",
        "--set", "evaluation.slices=[club]", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_shows_the_metrics_of_the_run_as_tables(
    finished_run: dict[str, Any], two_tower: Command
) -> None:
    # The newest model may be that of another test, which fits one more in the same folder.
    version = Path(finished_run["serving_dir"]) / str(finished_run["pushed_version"])
    done = two_tower(
        "evaluate", "--config", str(finished_run["config_path"]), "--model", str(version)
    )
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    for ranker, metrics in finished_run["metrics"].items():
        assert f"{ranker} {metrics['hit_rate@10']:.4f}" in shown
    assert "The gate would bless the model" in shown
    assert "repeat: new" in shown


def test_without_a_model_the_newest_fit_is_measured(
    finished_run: dict[str, Any], two_tower: Command
) -> None:
    done = two_tower("evaluate", "--config", str(finished_run["config_path"]), "--json")
    assert done.returncode == 0, done.stderr
    assert "/Trainer/model/" in json.loads(done.stdout)["model"]


def test_measures_a_given_model_by_a_given_protocol(
    finished_run: dict[str, Any], rolling: dict[str, Any]
) -> None:
    assert rolling["protocol"] == "rolling"
    assert rolling["num_evaluation_queries"] == rolling["num_events"]
    assert set(rolling["slices"]["feature club"]) == {"red", "blue"}
    assert str(finished_run["pushed_version"]) in rolling["model"]


def test_without_a_run_the_message_says_what_to_do(two_tower: Command, tmp_path: Path) -> None:
    config = write_two_clubs(tmp_path)
    done = two_tower("evaluate", "--config", str(config))
    assert done.returncode == 1
    assert "there is no run of clubs" in done.stderr
    assert "two-tower run --config" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_what_is_no_model_is_named(
    finished_run: dict[str, Any], two_tower: Command, tmp_path: Path
) -> None:
    done = two_tower(
        "evaluate", "--config", str(finished_run["config_path"]), "--model", str(tmp_path)
    )
    assert done.returncode == 1
    assert f"{tmp_path} must be a SavedModel" in done.stderr


def held_out(finished_run: dict[str, Any], protocol: str) -> Iterator[tuple[Any, list[str]]]:
    """Yield queries as a client would send them, and their right answers."""
    from components.retrieval_evaluator.config import EvaluationConfig
    from components.retrieval_evaluator.evaluation_queries import read_queries
    from models.input.raw_examples import split_files
    from pipeline.config.file import load
    from pipeline.runs.evaluation import client_queries, newest_output

    config = load(str(finished_run["config_path"]))
    files = split_files(newest_output(config, "TimelineExampleGen", "examples"), "eval")
    settings = EvaluationConfig(protocol=protocol)

    # The server knows candidates by ID, so their indices do not matter.
    def index_of(ids: Any) -> np.ndarray:
        return np.zeros(len(ids), np.int64)

    for block in read_queries(files, config.spec, settings, index_of, 1, 100):
        for row, query in enumerate(client_queries(block.inputs, config.spec)):
            targets = block.target_ids[block.target_rows == row]
            yield query, [target.decode() for target in targets]


@pytest.mark.parametrize(("protocol", "excluded"), [("from_cut", True), ("rolling", False)])
def test_the_served_model_has_the_metrics_that_were_measured(
    finished_run: dict[str, Any], rolling: dict[str, Any], protocol: str, excluded: bool
) -> None:
    from serving.clients import RetrievalClient
    from serving.launcher import running_model_server

    measured = finished_run["metrics"] if excluded else rolling["metrics_other"]
    hits, num_events = dict.fromkeys(KS, 0), 0
    with (
        running_model_server(finished_run["serving_dir"], "retrieval") as server,
        RetrievalClient(server.grpc_target, "retrieval", query_id_name="user") as client,
    ):
        for query, targets in held_out(finished_run, protocol):
            answer = client.recommend(
                query.query_id,
                history=query.history,
                features=query.features,
                exclude=query.history if excluded else (),
                k=max(KS),
            )
            num_events += len(targets)
            for k in KS:
                hits[k] += sum(target in answer.candidate_ids[:k] for target in targets)
    assert num_events == rolling["num_events"]
    for k in KS:
        assert hits[k] / num_events == pytest.approx(measured["model"][f"hit_rate@{k}"], abs=1e-3)
