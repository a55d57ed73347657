"""Cleaning with a real ML Metadata and real folders, as TFX writes them."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import ANY

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.errors import CleaningError
from pipeline.runs import cleaning
from pipeline.runs.cleaning import CleaningPlan, carry_out, plan_cleaning
from pipeline.runs.history import RunHistory
from pipeline.runs.metadata import open_store
from pipeline.runs.results import component_executions
from tests.builders import project
from tests.pipeline.runs.metadata_rows import MetadataRows
from tests.pipeline.two_clubs import Command

LIVE, DELETED = mlmd.Artifact.LIVE, mlmd.Artifact.DELETED
State = mlmd.Execution


class Runs(MetadataRows):
    """Writes runs of a few components as TFX does.

    Args:
        folder: Folder for the project.
        store: ML Metadata; by default that of the project.
    """

    def __init__(self, folder: Path, store: MetadataStore | None = None) -> None:
        self.config = project(folder)
        super().__init__(store or open_store(self.config), self.config.name)
        self.models_config = folder / "models.config"

    def artifact(
        self, execution: int, component: str, type_name: str, **properties: int | str
    ) -> int:
        """Add an output of an execution."""
        found = self.add_output(
            execution, type_name, str(self.folder(execution, component)), **properties
        )
        attribution = mlmd.Attribution(
            artifact_id=found, context_id=self.context("pipeline", self.name)
        )
        self.store.put_attributions_and_associations([attribution], [])
        return found

    def folder(self, execution: int, component: str) -> Path:
        """Write the folder of an output that ML Metadata does not know."""
        folder = self.config.run_dir / "artifacts" / component / "out" / str(execution)
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"x" * 1000)
        return folder

    def execution(
        self,
        run_id: str,
        component: str,
        given: Sequence[int] = (),
        cached: Sequence[int] = (),
        state: "mlmd.Execution.State" = State.COMPLETE,
    ) -> int:
        execution = self.add_execution(run_id, component, state)
        self.event(execution, given, mlmd.Event.INPUT)
        self.event(execution, cached, mlmd.Event.OUTPUT)
        return execution

    def event(self, execution: int, artifacts: Sequence[int], kind: "mlmd.Event.Type") -> None:
        self.store.put_events(
            [mlmd.Event(execution_id=execution, artifact_id=a, type=kind) for a in artifacts]
        )

    def version(self, number: int) -> None:
        folder = Path(self.config.serving_dir) / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "saved_model.pb").write_text("model")

    def fit(self, run_id: str, examples: int | None = None, blessed: int = 1) -> tuple[int, int]:
        """Add all components but the last, and return the examples and the model."""
        gen = self.execution(run_id, "Gen", cached=() if examples is None else [examples])
        if examples is None:
            examples = self.artifact(gen, "Gen", "Examples")
        trainer = self.execution(run_id, "Trainer", given=[examples])
        model = self.artifact(trainer, "Trainer", "Model")
        judge = self.execution(run_id, "Judge", given=[model, examples])
        self.artifact(judge, "Judge", "ModelBlessing", blessed=blessed, current_model_id=model)
        return examples, model

    def dag_run(self, run_id: str, version: int) -> None:
        """Add a complete run of another orchestrator, without a summary."""
        _, model = self.fit(run_id)
        pusher = self.execution(run_id, "Pusher", given=[model])
        self.artifact(pusher, "Pusher", "PushedModel", pushed_version=str(version))
        self.version(version)

    def refresh(self, run_id: str, version: int, model: int) -> None:
        """Add an index refresh with an earlier model."""
        history = RunHistory(self.store, self.name)
        record = history.begin(run_id, "index", None)
        index = self.execution(run_id, "IndexBuilder", given=[model])
        self.artifact(index, "IndexBuilder", "Model")
        self.version(version)
        history.end(record, "complete", "", {"pushed_version": version})

    def run(
        self, run_id: str, version: int | None, *, examples: int | None = None, blessed: int = 1
    ) -> int:
        """Add a run, and return its examples, which another run may take from the cache."""
        history = RunHistory(self.store, self.name)
        record = history.begin(run_id, "run", None)
        examples, _ = self.fit(run_id, examples, blessed)
        logs = self.config.run_dir / "logs"
        logs.mkdir(exist_ok=True)
        (logs / f"{run_id}.log").write_text("log")
        report = logs.parent / "reports" / run_id
        report.mkdir(parents=True)
        (report / "report.html").write_text("report")
        if version is not None:
            self.version(version)
            history.end(record, "complete", "", {"pushed_version": version})
        elif not blessed:
            history.end(record, "refused", "the gate", {})
        return examples

    def plan(self, keep: int) -> CleaningPlan:
        return plan_cleaning(self.config, self.store, keep, self.models_config)

    def clean(self, keep: int) -> CleaningPlan:
        plan = self.plan(keep)
        carry_out(plan, self.store)
        return plan

    def outputs(self) -> set[str]:
        root = self.config.run_dir / "artifacts"
        return {str(path.parent.relative_to(root)) for path in root.rglob("data")}

    def versions(self) -> list[str]:
        return sorted(path.name for path in Path(self.config.serving_dir).iterdir())

    def states(self) -> dict[str, int]:
        root = self.config.run_dir / "artifacts"
        return {str(Path(a.uri).relative_to(root)): a.state for a in self.store.get_artifacts()}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_old_runs_are_removed_except_what_kept_runs_took_from_the_cache(runs: Runs) -> None:
    old = runs.run("1", 11)
    runs.run("2", 12, examples=old)
    runs.run("3", 13, examples=old)
    before = runs.outputs()
    plan = runs.plan(1)
    assert runs.outputs() == before  # a plan changes nothing
    assert plan.kept_runs == ("3",)
    assert plan.kept_versions == {13: "newest, pushed by a kept run"}
    runs.clean(1)
    # The examples of the first run are those of the third.
    assert runs.outputs() == {"Gen/out/1", "Trainer/out/8", "Judge/out/9"}
    assert runs.versions() == ["13"]
    assert [path.name for path in (runs.config.run_dir / "logs").iterdir()] == ["3.log"]
    assert [path.name for path in (runs.config.run_dir / "reports").iterdir()] == ["3"]
    for output, state in runs.states().items():
        assert state == (LIVE if output in runs.outputs() else DELETED), output
    assert runs.plan(1).removable == ()


def test_runs_since_the_last_complete_one_stay(runs: Runs) -> None:
    runs.run("1", None)  # killed
    runs.run("2", 12)
    runs.run("3", None, blessed=0)
    plan = runs.clean(1)
    assert plan.kept_runs == ("2", "3")
    assert {Path(found.path).parts[-3] for found in plan.removable} >= {"Gen", "Trainer", "Judge"}
    assert len(runs.outputs()) == 6


def test_without_a_complete_run_everything_stays(runs: Runs) -> None:
    runs.version(11)
    assert runs.plan(1).removable == ()
    runs.run("1", None, blessed=0)
    runs.run("2", None, blessed=0)
    assert runs.plan(1).removable == ()


def test_the_run_of_the_last_blessed_model_stays(runs: Runs) -> None:
    runs.run("1", 11)
    runs.run("2", 12, blessed=0)
    runs.run("3", 13, blessed=0)
    assert runs.plan(1).kept_runs == ("1", "3")


def test_the_blessed_model_of_an_experiment_is_not_compared_with(runs: Runs) -> None:
    runs.run("1", 11)
    runs.run("2", 12, blessed=0)
    history = RunHistory(runs.store, runs.name)
    record = history.begin("3", "run", None, is_experiment=True)
    runs.fit("3")
    history.end(record, "complete", "", {})
    assert runs.plan(1).kept_runs == ("1", "3")


def test_runs_are_ordered_by_their_start_and_not_by_their_id(runs: Runs) -> None:
    runs.dag_run("scheduled__2026-11-21T00:00:00+00:00", 11)
    time.sleep(0.002)  # ML Metadata counts in milliseconds
    runs.run("20261121T010000.000000Z", 12)
    time.sleep(0.002)
    runs.dag_run("manual__2026-11-21T02:00:00+00:00", 13)
    assert runs.plan(2).kept_runs == (
        "20261121T010000.000000Z",
        "manual__2026-11-21T02:00:00+00:00",
    )


def test_a_run_of_another_orchestrator_without_a_push_stays_and_does_not_count(runs: Runs) -> None:
    runs.fit("between two tasks")
    time.sleep(0.002)
    runs.run("2", 12)
    runs.run("3", 13)
    runs.fit("also")
    assert runs.plan(1).kept_runs == ("between two tasks", "3", "also")


def test_what_ml_metadata_does_not_know_stays(runs: Runs) -> None:
    runs.run("1", 11)
    runs.run("2", 12)
    unknown = runs.folder(400, "Trainer")
    runs.version(5)
    working = runs.config.run_dir / "artifacts" / "Trainer" / ".system" / "executor_execution"
    for number in ("2", "400"):
        (working / number).mkdir(parents=True)
    plan = runs.clean(1)
    assert {found.path for found in plan.removable} >= {str(working / "2")}
    assert unknown.exists()
    assert (working / "400").exists()
    assert runs.versions() == ["12", "5"]


def test_outputs_of_a_killed_component_are_removed(runs: Runs) -> None:
    runs.run("1", 11)
    killed = runs.execution("1", "Trainer", state=State.RUNNING)
    left = runs.folder(killed, "Trainer")
    other = runs.folder(killed, "Judge")
    runs.run("2", 12)
    runs.clean(1)
    assert not left.exists()
    assert other.exists()


def test_a_moved_folder_is_not_cleaned(runs: Runs) -> None:
    runs.run("1", 11)
    runs.run("2", 12)
    root = runs.config.run_dir / "artifacts"
    root.rename(root.with_name("elsewhere"))
    with pytest.raises(CleaningError, match="the folder was moved"):
        runs.plan(1)
    assert set(runs.states().values()) == {LIVE}


def test_versions_that_kept_runs_of_another_orchestrator_pushed_stay(runs: Runs) -> None:
    for number in range(1, 5):
        runs.dag_run(f"manual__{number}", 10 + number)
        time.sleep(0.002)
    assert runs.clean(2).kept_versions == {13: "pushed by a kept run", 14: "newest, pushed by a kept run"}
    assert runs.versions() == ["13", "14"]


def test_index_refreshes_do_not_displace_the_run_of_their_model(runs: Runs) -> None:
    runs.run("1", 11)
    runs.run("2", 12)
    (model,) = (a.id for a in runs.store.get_artifacts() if a.uri.endswith("Trainer/out/5"))
    for number in range(3, 7):
        runs.refresh(str(number), 10 + number, model)
    plan = runs.clean(2)
    assert plan.kept_runs == ("1", "2", "5", "6")
    assert runs.versions() == ["11", "12", "15", "16"]
    assert runs.clean(1).kept_runs == ("2", "6")
    assert {"Gen/out/4", "Trainer/out/5", "Judge/out/6"} <= runs.outputs()


def test_another_project_with_the_same_run_ids_is_not_cleaned(runs: Runs, tmp_path: Path) -> None:
    others = Runs(tmp_path / "other", runs.store)
    others.name = "other"
    for number in ("1", "2"):
        runs.dag_run(number, 10 + int(number))
        others.dag_run(number, 20 + int(number))
        time.sleep(0.002)
    plan = runs.clean(1)
    assert plan.kept_versions == {12: "newest, pushed by a kept run"}
    assert not any(found.path.startswith(str(tmp_path / "other")) for found in plan.removable)
    states = {artifact.uri: artifact.state for artifact in runs.store.get_artifacts()}
    assert {s for uri, s in states.items() if str(tmp_path / "other") in uri} == {LIVE}
    listed = component_executions(runs.store, runs.name, "1")
    assert [found["component"] for found in listed] == ["Gen", "Trainer", "Judge", "Pusher"]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (
            'specific { versions: 11 versions: 12 } } version_labels { key: "stable" value: 12 ',
            {11: "loaded", 12: "stable, loaded", 15: "newest, pushed by a kept run"},
        ),
        ("latest { num_versions: 2 }", {14: "loaded", 15: "newest, loaded, pushed by a kept run"}),
        ("all {}", {**dict.fromkeys(range(11, 15), "loaded"), 15: ANY}),
    ],
)
def test_versions_that_a_server_labels_or_loads_stay(
    runs: Runs, policy: str, kept: dict[int, str]
) -> None:
    for number in range(1, 6):
        runs.run(str(number), 10 + number)
    runs.models_config.write_text(
        'model_config_list { config { name: "retrieval" base_path: "x" '
        f"model_version_policy {{ {policy} }} }} }}"
    )
    assert runs.clean(1).kept_versions == kept
    assert runs.versions() == [str(version) for version in sorted(kept)]


def test_a_killed_removal_is_finished_by_the_next(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 4):
        runs.run(str(number), 10 + number)
    removed = 0

    def kill_the_second(path: Path) -> None:
        nonlocal removed
        removed += 1
        if removed == 2:
            raise KeyboardInterrupt
        remove(path)

    remove = cleaning.shutil.rmtree
    monkeypatch.setattr(cleaning.shutil, "rmtree", kill_the_second)
    with pytest.raises(KeyboardInterrupt):
        runs.clean(1)
    # Half removed artifacts are marked as deleted, wherever the removal ended.
    assert len([state for state in runs.states().values() if state == LIVE]) == 3
    monkeypatch.undo()
    plan = runs.clean(1)
    assert plan.artifact_ids == ()
    assert len(runs.outputs()) == 3
    assert runs.versions() == ["13"]


def test_a_half_removed_version_is_removed(runs: Runs) -> None:
    runs.run("1", 11)
    left = Path(runs.config.serving_dir) / "removed-10"
    left.mkdir()
    (left / "saved_model.pb").write_text("")
    plan = runs.clean(1)
    assert [found.path for found in plan.removable] == [str(left)]
    assert runs.versions() == ["11"]


def test_the_command_shows_first_and_removes_with_yes(runs: Runs, two_tower: Command) -> None:
    runs.run("1", 11)
    runs.run("2", 12)
    arguments = ("clean", "--config", str(runs.config.root / "configs" / "clubs.yaml"), "--keep", "1")
    shown = two_tower(*arguments)
    assert shown.returncode == 0, shown.stderr
    assert "would remove  version" in shown.stdout
    assert "pass --yes" in shown.stdout
    assert runs.versions() == ["11", "12"]
    done = two_tower(*arguments, "--yes", "--json")
    assert json.loads(done.stdout)["removed"] is True
    assert runs.versions() == ["12"]
    assert two_tower(*arguments[:-1], "0").returncode == 2
    missing = two_tower(*arguments, "--model-config-file", "nowhere")
    assert missing.returncode == 1
    assert "there is no model config file nowhere" in missing.stderr
