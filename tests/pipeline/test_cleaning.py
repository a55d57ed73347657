"""Cleaning on real ML Metadata and real folders, with runs as TFX leaves them."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline import cleaning
from pipeline.cleaning import CleaningPlan, carry_out, plan_cleaning
from pipeline.config import PipelineConfig, load
from pipeline.metadata_store import open_store
from pipeline.run_history import RunHistory
from tests.pipeline.two_clubs import Command, write_two_clubs

LIVE, DELETED = mlmd.Artifact.LIVE, mlmd.Artifact.DELETED


class Runs:
    """Makes runs of two components, `Gen` and `Trainer`, and what they leave."""

    def __init__(self, folder: Path) -> None:
        self.path = write_two_clubs(folder)
        self.config: PipelineConfig = load(str(self.path))
        self.config.run_dir.mkdir(parents=True)
        self.store = open_store(self.config)
        self.models_config = folder / "models.config"

    def artifact(self, execution: int, component: str, type_name: str, **properties: int) -> int:
        folder = self.config.run_dir / "artifacts" / component / "out" / str(execution)
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"x" * 1000)
        type_id = self.store.put_artifact_type(mlmd.ArtifactType(name=type_name))
        artifact = mlmd.Artifact(type_id=type_id, uri=str(folder), state=LIVE)
        for name, value in properties.items():
            artifact.custom_properties[name].int_value = value
        (found,) = self.store.put_artifacts([artifact])
        return int(found)

    def execution(self, run_id: str, given: Sequence[int] = (), cached: Sequence[int] = ()) -> int:
        context_type = self.store.put_context_type(mlmd.ContextType(name="pipeline_run"))
        context = self.store.get_context_by_type_and_name("pipeline_run", run_id)
        if context is None:
            self.store.put_contexts([mlmd.Context(type_id=context_type, name=run_id)])
            context = self.store.get_context_by_type_and_name("pipeline_run", run_id)
        type_id = self.store.put_execution_type(mlmd.ExecutionType(name="Component"))
        (execution,) = self.store.put_executions([mlmd.Execution(type_id=type_id)])
        association = mlmd.Association(execution_id=execution, context_id=context.id)
        self.store.put_attributions_and_associations([], [association])
        self.event(execution, given, mlmd.Event.INPUT)
        self.event(execution, cached, mlmd.Event.OUTPUT)
        return int(execution)

    def event(self, execution: int, artifacts: Sequence[int], kind: "mlmd.Event.Type") -> None:
        self.store.put_events(
            [mlmd.Event(execution_id=execution, artifact_id=a, type=kind) for a in artifacts]
        )

    def run(
        self, run_id: str, version: int | None, *, examples: int | None = None, blessed: int = 1
    ) -> int:
        """One run; returns its examples, which another run may take from the cache."""
        history = RunHistory(self.store, self.config.name)
        record = history.begin(run_id, "run", None)
        gen = self.execution(run_id, cached=() if examples is None else [examples])
        if examples is None:
            examples = self.artifact(gen, "Gen", "Examples")
            self.event(gen, [examples], mlmd.Event.OUTPUT)
        trainer = self.execution(run_id, given=[examples])
        model = self.artifact(trainer, "Trainer", "Model")
        self.event(trainer, [model], mlmd.Event.OUTPUT)
        judge = self.execution(run_id, given=[model, examples])
        blessing = self.artifact(
            judge, "Judge", "ModelBlessing", blessed=blessed, current_model_id=model
        )
        self.event(judge, [blessing], mlmd.Event.OUTPUT)
        logs = self.config.run_dir / "logs"
        logs.mkdir(exist_ok=True)
        (logs / f"{run_id}.log").write_text("log")
        if version is not None:
            folder = Path(self.config.serving_dir) / str(version)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "saved_model.pb").write_text("model")
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

    def places(self) -> set[str]:
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


def test_old_runs_go_and_what_the_kept_ones_took_from_the_cache_stays(runs: Runs) -> None:
    old = runs.run("1", 11)
    runs.run("2", 12, examples=old)
    runs.run("3", 13, examples=old)
    before = runs.places()
    plan = runs.plan(1)
    assert runs.places() == before  # a plan changes nothing
    assert plan.kept_runs == ("3",)
    assert plan.kept_versions == {13: "newest, of a kept run"}
    runs.clean(1)
    # The examples of the first run are those of the third.
    assert runs.places() == {"Gen/out/1", "Trainer/out/8", "Judge/out/9"}
    assert runs.versions() == ["13"]
    assert [path.name for path in (runs.config.run_dir / "logs").iterdir()] == ["3.log"]
    for place, state in runs.states().items():
        assert state == (LIVE if place in runs.places() else DELETED), place
    assert runs.plan(1).removable == ()


def test_runs_since_the_last_complete_one_stay(runs: Runs) -> None:
    runs.run("1", None)  # killed
    runs.run("2", 12)
    runs.run("3", None, blessed=0)
    plan = runs.clean(1)
    assert plan.kept_runs == ("2", "3")
    assert {Path(found.path).parts[-3] for found in plan.removable} >= {"Gen", "Trainer", "Judge"}
    assert len(runs.places()) == 6


def test_without_a_complete_run_everything_stays(runs: Runs) -> None:
    runs.run("1", None, blessed=0)
    runs.run("2", None, blessed=0)
    assert runs.plan(1).removable == ()


def test_the_run_of_the_last_blessed_model_stays(runs: Runs) -> None:
    runs.run("1", 11)
    runs.run("2", 12, blessed=0)  # as an index refresh: it serves a model that it did not judge
    runs.run("3", 13, blessed=0)
    assert runs.plan(1).kept_runs == ("1", "3")


def test_versions_that_servers_hold_stay(runs: Runs) -> None:
    for number in range(1, 6):
        runs.run(str(number), 10 + number)
    runs.models_config.write_text(
        'model_config_list { config { name: "retrieval" base_path: "x" '
        "model_version_policy { specific { versions: 11 versions: 12 } } "
        'version_labels { key: "stable" value: 12 } } }'
    )
    plan = runs.clean(1)
    assert plan.kept_versions == {
        11: "loaded",
        12: "stable, loaded",
        15: "newest, of a kept run",
    }
    assert runs.versions() == ["11", "12", "15"]


def test_a_removal_that_was_killed_is_finished_by_the_next(
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
    # What is half removed is no artifact any more, wherever the removal ended.
    assert len([state for state in runs.states().values() if state == LIVE]) == 3
    monkeypatch.undo()
    plan = runs.clean(1)
    assert plan.artifact_ids == ()
    assert len(runs.places()) == 3
    assert runs.versions() == ["13"]


def test_a_half_removed_version_is_none_for_a_server_and_goes(runs: Runs) -> None:
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
    arguments = ("clean", "--config", str(runs.path), "--keep", "1")
    shown = two_tower(*arguments)
    assert shown.returncode == 0, shown.stderr
    assert "would go  version" in shown.stdout
    assert "`--yes` removes it" in shown.stdout
    assert runs.versions() == ["11", "12"]
    done = two_tower(*arguments, "--yes", "--json")
    assert json.loads(done.stdout)["removed"] is True
    assert runs.versions() == ["12"]
    assert two_tower(*arguments[:-1], "0").returncode == 2
