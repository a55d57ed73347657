from pathlib import Path

from tfx.types import Artifact, standard_artifacts
from tfx.utils import path_utils

from components.model_finder.executor import Executor
from components.model_recorder.executor import Executor as RecorderExecutor
from models.no_model import is_no_model


def artifact(kind: type[Artifact], folder: Path) -> Artifact:
    one = kind()
    one.uri = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return one


def recorded_model(root: Path, name: str, examples: Artifact) -> Artifact:
    model = artifact(standard_artifacts.Model, root / name)
    saved = Path(path_utils.serving_model_dir(model.uri))
    (saved / "variables").mkdir(parents=True)
    (saved / "saved_model.pb").write_text(name)
    (saved / "variables" / "variables.index").write_text(name)
    pushed = standard_artifacts.PushedModel()
    pushed.set_string_custom_property("pushed_version", "7")
    RecorderExecutor().Do(
        {"model": [model], "fitted_examples": [examples], "pushed_model": [pushed]},
        {},
        {"records": str(root / "records")},
    )
    return model


def find(root: Path, **inputs: Artifact) -> Path:
    found = artifact(standard_artifacts.Model, root / "found")
    Executor().Do(
        {key: [given] for key, given in inputs.items()},
        {"model": [found]},
        {"records": str(root / "records")},
    )
    return Path(path_utils.serving_model_path(found.uri))


def test_says_so_where_there_is_no_model(tmp_path: Path) -> None:
    assert is_no_model(str(find(tmp_path)))


def test_copies_the_whole_model(tmp_path: Path) -> None:
    examples = artifact(standard_artifacts.Examples, tmp_path / "examples")
    recorded_model(tmp_path, "monday", examples)
    saved = find(tmp_path)
    assert not is_no_model(str(saved))
    assert (saved / "saved_model.pb").read_text() == "monday"
    assert (saved / "variables" / "variables.index").read_text() == "monday"


def test_follows_the_rules_of_the_resolvers(tmp_path: Path) -> None:
    first = artifact(standard_artifacts.Examples, tmp_path / "first")
    second = artifact(standard_artifacts.Examples, tmp_path / "second")
    recorded_model(tmp_path, "monday", first)
    tuesday = recorded_model(tmp_path, "tuesday", second)
    not_itself = find(tmp_path, current_model=tuesday)
    assert (not_itself / "saved_model.pb").read_text() == "monday"
    of_other_data = find(tmp_path, fitted_examples=first)
    assert (of_other_data / "saved_model.pb").read_text() == "tuesday"
