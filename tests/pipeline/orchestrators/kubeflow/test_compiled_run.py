"""Every step of a compiled pipeline, run by TFX's own container entrypoint."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.orchestrators.kubeflow.compiled_steps import (
    CompiledPipeline,
    StepFailedError,
    compile_for_folder,
)
from tests.pipeline.two_clubs import ROOT, Command, write_two_clubs

pytestmark = pytest.mark.long


@dataclass(frozen=True)
class Compared:
    """The same project, run locally and, compiled, step by step."""

    config: Path
    query_id: str
    local: dict[str, Any]
    steps: CompiledPipeline
    serving_dir: Path


def _two_clubs(folder: Path) -> tuple[Path, Path, str]:
    return write_two_clubs(folder), folder, "user 1"


def _movielens(folder: Path) -> tuple[Path, Path, str]:
    if not (ROOT / "data" / "movielens_100k" / "interactions.csv").exists():
        pytest.skip("data/movielens_100k does not exist: `two-tower data movielens-100k`")
    del folder
    return ROOT / "configs" / "movielens_100k.yaml", ROOT, "42"


@pytest.fixture(scope="module", params=[_two_clubs, _movielens], ids=["two_clubs", "movielens"])
def compared(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    two_tower: Command,
) -> Compared:
    folder = tmp_path_factory.mktemp("kubeflow")
    config, data_directory, query_id = request.param(folder / "project")
    schema = data_directory / "schema" / config.stem / "schema.pbtxt"
    runs = f"runs={folder / 'runs'}"
    ran = two_tower(
        "run", "--config", str(config), "--set", runs, "--push", "--json", timeout_s=600
    )
    assert ran.returncode == 0, ran.stderr
    root = folder / "root"
    steps = CompiledPipeline(
        compile_for_folder(config, root, f"schema.file={schema}"),
        root / "run-1",
        {"data_directory": str(data_directory)},
    )
    steps.run()
    return Compared(
        config, query_id, json.loads(ran.stdout), steps, root / config.stem / "serving/retrieval"
    )


def test_the_metrics_equal_those_of_a_local_run(compared: Compared) -> None:
    folder = Path(compared.steps.outputs["RetrievalEvaluator"]["evaluation"]["uri"])
    report = json.loads((folder / "evaluation.json").read_text())
    local = json.loads(
        next(
            (Path(compared.local["serving_dir"]).parents[1] / "artifacts").glob(
                "RetrievalEvaluator/evaluation/*/evaluation.json"
            )
        ).read_text()
    )
    assert report["metrics"].keys() == local["metrics"].keys()
    for ranker, metrics in local["metrics"].items():
        assert report["metrics"][ranker] == pytest.approx(metrics, abs=1e-6), ranker


def test_the_answers_equal_those_of_a_local_run(compared: Compared, two_tower: Command) -> None:
    def ask(*options: str) -> dict[str, Any]:
        asked = two_tower(
            *("recommend", "--config", str(compared.config), "--json"),
            *("--query-id", compared.query_id, "-k", "10", *options),
        )
        assert asked.returncode == 0, asked.stderr
        answer: dict[str, Any] = json.loads(asked.stdout)
        assert answer.pop("model_version") > 0  # The time of the push.
        return answer

    served = ask("--set", f"serving.directory={compared.serving_dir}")
    local_runs = Path(compared.local["serving_dir"]).parents[2]
    local = ask("--set", f"runs={local_runs}")
    scores, local_scores = (
        [candidate.pop("score") for candidate in answer["candidates"]] for answer in (served, local)
    )
    # Training in two processes may differ in the last bits of a float.
    assert scores == pytest.approx(local_scores, abs=1e-5)
    assert served == local


def test_the_model_is_recorded_for_later_runs(compared: Compared) -> None:
    [file] = (compared.serving_dir.parents[1] / "blessed_models").glob("*.json")
    record = json.loads(file.read_text())
    assert record["model_uri"] == compared.steps.outputs["Trainer"]["model"]["uri"]
    [version] = [path.name for path in compared.serving_dir.iterdir() if path.name.isdecimal()]
    assert record["pushed_version"] == version


def test_a_span_is_compared_with_that_of_an_earlier_run(tmp_path: Path) -> None:
    config = write_two_clubs(
        tmp_path,
        events={"files": "events-{SPAN}.csv"},
        drift={"action": "stop", "max_events": 1.5},
    )
    header, *events = (tmp_path / "events.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "events-1.csv").write_text("\n".join([header, *events[::2]]), encoding="utf-8")
    (tmp_path / "events-2.csv").write_text("\n".join([header, *events]), encoding="utf-8")
    root = tmp_path / "root"
    spec = compile_for_folder(config, root)

    def hold(span: int) -> dict[str, Any]:
        steps = CompiledPipeline(
            spec, root / f"run-{span}", {"data_directory": str(tmp_path), "span": str(span)}
        )
        steps.run(["TimelineExampleGen", "DriftGate"])
        folder = Path(steps.outputs["DriftGate"]["profile"]["uri"])
        report: dict[str, Any] = json.loads((folder / "drift_report.json").read_text())
        return report

    assert ((first := hold(1))["span"], first["reference"]) == ("1", None)
    with pytest.raises(StepFailedError, match="span 2 has drifted from span 1: events: their"):
        hold(2)
