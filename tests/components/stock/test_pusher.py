from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact
from tfx.utils import proto_utils

from components import files
from components.errors import CatalogueRefusedError, NotBlessedError
from components.stock.pusher import Executor, newest_version, push
from tests.builders import artifact, blessing
from tests.components.interactions.object_store import ObjectStore

Push = Callable[..., Artifact]


def save_model(folder: Path, content: str = "graph") -> str:
    (folder / "variables").mkdir(parents=True)
    (folder / "assets.extra").mkdir()
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "variables.index").write_text("index")
    (folder / "assets.extra" / "tf_serving_warmup_requests").write_text("warm-up")
    return str(folder)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save_model(tmp_path / "model")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "serving" / "retrieval"


def contents(folder: str | Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def test_a_version_holds_the_whole_model_and_is_pushed_once(model: str, base: Path):
    before = int(time.time())
    version, path = push(model, str(base))
    assert before <= version <= int(time.time())
    pushed = contents(path)
    assert len(pushed.pop(os.path.join("assets.extra", "digest"))) == 64
    assert pushed == contents(model)
    # The same model is pushed once.
    assert push(model, str(base)) == (version, path)
    assert os.listdir(base) == [str(version)]
    # With new metadata, artifacts are numbered from one again.
    Path(model, "saved_model.pb").write_text("another graph")
    assert push(model, str(base))[0] > version


def test_exports_of_the_same_identity_are_one_model(tmp_path: Path, base: Path):
    exports = []
    for place, identity in enumerate(("towers and catalogue", "towers and catalogue", "others")):
        exports.append(save_model(tmp_path / str(place), content=f"graph {place}"))
        Path(exports[-1], "assets.extra", "identity").write_text(identity)
    first, _ = push(exports[0], str(base))
    assert push(exports[1], str(base))[0] == first
    assert push(exports[2], str(base))[0] > first


def test_another_model_becomes_a_higher_version(base: Path, tmp_path: Path):
    # Even within one second.
    models = [save_model(tmp_path / f"run {run}", f"graph {run}") for run in range(3)]
    versions = [push(model, str(base))[0] for model in models]
    assert versions == sorted(set(versions))
    assert newest_version(str(base)) == versions[-1]


def test_a_version_is_higher_than_any_there_even_if_clocks_disagree(model: str, base: Path):
    (base / "99999999999").mkdir(parents=True)
    version, _ = push(model, str(base))
    assert version == 100_000_000_000


def test_other_files_are_kept(model: str, base: Path):
    assert newest_version(str(base)) == 0
    names = ["-3", "incoming", "notes"]
    for name in names:
        (base / name).mkdir(parents=True)
    (base / "README").write_text("ours")
    assert newest_version(str(base)) == 0
    version, _ = push(model, str(base))
    assert sorted(os.listdir(base)) == sorted([str(version), "README", *names])


def test_an_older_model_can_be_pushed_again(model: str, base: Path, tmp_path: Path):
    first, _ = push(model, str(base))
    second, _ = push(save_model(tmp_path / "other", "other graph"), str(base))
    third, _ = push(model, str(base))
    assert first < second < third


def test_a_killed_push_leaves_no_version_and_the_next_push_cleans_up(
    model: str, base: Path, monkeypatch: pytest.MonkeyPatch
):
    def kill(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files, "copy", kill)
        with pytest.raises(KeyboardInterrupt):
            push(model, str(base))
    assert newest_version(str(base)) == 0
    assert os.listdir(base), "the push must be killed after a part of the copy"
    version, path = push(model, str(base))
    assert os.listdir(base) == [str(version)]
    assert Path(path, "saved_model.pb").exists()


def test_a_failing_copy_leaves_the_versions_as_they_were(model: str, base: Path, tmp_path: Path):
    push(model, str(base))
    before = contents(base)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "variables").write_text("no saved_model.pb here")
    with pytest.raises(FileNotFoundError):
        push(str(broken), str(base))
    assert {
        name: text for name, text in contents(base).items() if "incoming-" not in name
    } == before


@pytest.fixture
def run_executor(base: Path, tmp_path: Path) -> Push:
    def run(
        ids: str = "a b",
        max_removed: float = 0.5,
        model_blessed: bool = True,
        infra_blessed: bool = True,
        base: str = str(base),
    ) -> Artifact:
        shutil.rmtree(tmp_path / "artifact", ignore_errors=True)
        exported = Path(save_model(tmp_path / "artifact" / "Format-Serving", ids))
        lines = (base64.urlsafe_b64encode(name.encode()).rstrip(b"=") for name in ids.split())
        (exported / "assets").mkdir()
        (exported / "assets" / "candidate_ids.base64").write_bytes(b"\n".join([*lines, b""]))
        model = artifact(standard_artifacts.Model, tmp_path / "artifact")
        of_model = blessing(standard_artifacts.ModelBlessing, tmp_path / "m", model_blessed, "why")
        of_infra = blessing(standard_artifacts.InfraBlessing, tmp_path / "i", infra_blessed, "why")
        pushed = artifact(standard_artifacts.PushedModel, tmp_path / "pushed")
        destination = pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=base)
        )
        Executor().Do(
            {"model": [model], "model_blessing": [of_model], "infra_blessing": [of_infra]},
            {"pushed_model": [pushed]},
            {
                "push_destination": proto_utils.proto_to_json(destination),
                "custom_config": json.dumps({"max_removed": max_removed}),
            },
        )
        return pushed

    return run


def test_the_executor_pushes_a_blessed_model(run_executor: Push, base: Path, tmp_path: Path):
    pushed = run_executor()
    version = pushed.get_string_custom_property("pushed_version")
    assert os.listdir(base) == [version]
    assert pushed.get_string_custom_property("pushed_destination") == str(base / version)
    assert pushed.get_int_custom_property("pushed") == 1
    assert pushed.get_int_custom_property("newly_pushed") == 1
    assert run_executor().get_int_custom_property("newly_pushed") == 0
    assert (tmp_path / "pushed" / "destination.txt").read_text() == f"{base / version}\n"


@pytest.mark.parametrize(
    ("blessed", "gate"),
    [
        ({"model_blessed": False}, "the evaluation gate"),
        ({"infra_blessed": False}, "the serving gate"),
    ],
)
def test_the_executor_does_not_push_a_refused_model(
    run_executor: Push, base: Path, blessed: dict[str, bool], gate: str
):
    with pytest.raises(NotBlessedError, match=f"{gate} refused the model: why"):
        run_executor(**blessed)
    assert not base.exists()


def test_a_push_that_removes_too_many_candidates_in_service_is_refused(
    run_executor: Push, base: Path
):
    run_executor("7 42 1é x")
    run_executor("7 42 new")  # half of the candidates
    before = os.listdir(base)
    for ids in ("7", "7.0 42.0 new.0"):
        with pytest.raises(CatalogueRefusedError):
            run_executor(ids, max_removed=0.6)
    with pytest.raises(CatalogueRefusedError) as refused:
        run_executor("7 1é 42.0", max_removed=0.1)
    assert os.listdir(base) == before
    for part in ("at most 10%", "2 of 3 (66.7%)", "'42', 'new'", "'1é', '42.0'", str(base)):
        assert part in str(refused.value)
    run_executor("other", max_removed=1)
    assert len(os.listdir(base)) == 3


@pytest.mark.parametrize("damage", [os.remove, lambda path: Path(path).write_bytes(b"")])
def test_a_push_over_a_version_without_candidate_ids_needs_the_override(
    run_executor: Push, base: Path, damage: Callable[[Path], object]
):
    run_executor()
    [path] = base.glob("*/assets/candidate_ids.base64")
    damage(path)
    with pytest.raises(CatalogueRefusedError, match="max_removed=1") as refused:
        run_executor("a b c")
    assert str(path) in str(refused.value)
    assert len(os.listdir(base)) == 1
    run_executor("a b c", max_removed=1)
    assert len(os.listdir(base)) == 2


def test_candidates_in_service_on_an_object_store_are_compared(
    run_executor: Push, object_store: str
):
    run_executor("a b", base=object_store)
    with pytest.raises(CatalogueRefusedError, match="2 of 2"):
        run_executor("c d", base=object_store)
    run_executor("a c", base=object_store)
    assert len(files.list_folder(object_store)) == 2


def test_on_an_object_store_saved_model_pb_is_copied_last(model: str, object_store: str):
    version, path = push(model, object_store)
    assert path == f"{object_store}/{version}"
    assert len(ObjectStore.objects) == 4
    assert list(ObjectStore.objects)[-1] == f"{path}/saved_model.pb"
    assert newest_version(object_store) == version
    assert push(model, object_store) == (version, path)
    assert files.list_folder(object_store) == [str(version)]


def test_an_incomplete_version_on_an_object_store_is_ignored(
    model: str, object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, _ = push(model, object_store)
    other = save_model(tmp_path / "other", "other graph")
    copy = files.copy

    def copy_or_fail(source: str, target: str) -> None:
        if target.endswith("variables.index"):
            raise OSError("gone away")
        copy(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(files, "copy", copy_or_fail)
        with pytest.raises(OSError, match="gone away"):
            push(other, object_store)
    assert newest_version(object_store) == first
    assert push(model, object_store)[0] == first
    second, path = push(other, object_store)
    assert second > first + 1
    assert ObjectStore.objects[f"{path}/saved_model.pb"] == b"other graph"
