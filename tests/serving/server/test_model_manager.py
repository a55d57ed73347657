"""The list of models as a whole: its checks, labels, what a change loads and unloads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ServingError,
    UnknownError,
)
from serving.server import loaded_model, version_folders
from serving.server.loaded_model import LoadedModel
from serving.server.model_manager import ModelManager
from serving.server.model_versions import VersionStatus
from serving.server.version_folders import VersionFolder
from tests.builders import wait_for

Install = Callable[[Path, int], Path]


def load(folder: VersionFolder) -> LoadedModel:
    return loaded_model.load(folder.path, folder.version, config_pb2.ConfigProto())


@pytest.fixture
def manager() -> Iterator[ModelManager]:
    manager = ModelManager(load, poll_wait_s=0)
    manager.start()
    yield manager
    manager.stop(timeout_s=10)


@pytest.fixture
def base_path(tmp_path: Path, install_version: Install) -> Path:
    path = tmp_path / "served"
    path.mkdir()
    for version in (1, 2):
        install_version(path, version)
    return path


def config(base_path: Path, *models: str) -> Any:
    """Each model is `name` or `name { rest of its ModelConfig }`."""
    listed = []
    for model in models:
        name, _, rest = model.partition(" ")
        listed.append(
            f'config {{ name: "{name}" base_path: "{base_path}" '
            f'model_platform: "tensorflow" {rest} }}'
        )
    text = f"model_config_list {{ {' '.join(listed)} }}"
    return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())


ONE = "model_version_policy { specific { versions: 1 } }"
BOTH = "model_version_policy { all {} }"


def label(name: str, version: int) -> str:
    return f'version_labels {{ key: "{name}" value: {version} }}'


def configure(manager: ModelManager, configuration: Any) -> None:
    new = manager.configure(configuration)
    settling = manager.wait_until_settled(new, waits_for_files=False)
    asyncio.run(asyncio.wait_for(settling, 20))


def version_of(manager: ModelManager, model: str, label: str = "") -> int | str:
    spec = model_pb2.ModelSpec(name=model)
    if label:
        spec.version_label = label
    try:
        with manager.use(spec) as loaded:
            return loaded.version
    except ServingError as error:
        return error.message


def states(manager: ModelManager, model: str) -> dict[int, str]:
    rows = manager.statuses(model_pb2.ModelSpec(name=model))
    return {row.version: VersionStatus.State.Name(row.state) for row in rows}


def test_models_come_and_go_with_the_list(manager: ModelManager, base_path: Path) -> None:
    configure(manager, config(base_path, f"a {ONE}", "b"))
    assert (version_of(manager, "a"), version_of(manager, "b")) == (1, 2)

    configure(manager, config(base_path, f"c {ONE}", "b"))
    assert version_of(manager, "c") == 1
    wait_for(lambda: states(manager, "a") == {1: "END"})
    assert version_of(manager, "a") == "Servable not found for request: Latest(a)"

    # A name that comes back is waited for again.
    configure(manager, config(base_path, "a"))
    assert version_of(manager, "a") == 2


def test_labels_follow_the_list(manager: ModelManager, base_path: Path) -> None:
    configure(manager, config(base_path, f"a {BOTH}"))
    wait_for(lambda: states(manager, "a") == {1: "AVAILABLE", 2: "AVAILABLE"})
    manager.configure(config(base_path, f"a {BOTH} {label('stable', 1)} {label('canary', 2)}"))
    assert (version_of(manager, "a", "stable"), version_of(manager, "a", "canary")) == (1, 2)

    manager.configure(config(base_path, f"a {BOTH} {label('stable', 2)}"))
    assert version_of(manager, "a", "stable") == 2
    assert version_of(manager, "a", "canary") == "Unrecognized servable version label: canary"


def test_a_label_of_a_version_that_is_not_available_changes_nothing(
    manager: ModelManager, base_path: Path
) -> None:
    configure(manager, config(base_path, f"a {ONE}"))
    with pytest.raises(
        FailedPreconditionError,
        match="Request to assign label to version 2 of model a, which is not currently "
        "available for inference",
    ):
        manager.configure(config(base_path, f"b {ONE}", f"a {BOTH} {label('stable', 2)}"))
    assert version_of(manager, "b") == "Servable not found for request: Latest(b)"
    assert states(manager, "a") == {1: "AVAILABLE"}


def test_a_new_label_may_wait_for_its_version_if_allowed(base_path: Path) -> None:
    manager = ModelManager(load, 0, allows_unavailable_labels=True)
    manager.start()
    configure(manager, config(base_path, f"a {ONE} {label('stable', 1)}"))
    assert version_of(manager, "a", "stable") == 1
    with pytest.raises(FailedPreconditionError, match="assign label to version 7 of model a"):
        manager.configure(config(base_path, f"a {ONE} {label('stable', 7)}"))
    manager.stop(timeout_s=10)


X = 'config { name: "X" base_path: "/m" model_platform: "tensorflow" }'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"model_config_list {{ {X} {X} }}", "must be listed once, but X"),
        (f"model_config_list {{ {X.replace('/m', 'm')} }}", "must be an absolute path"),
        (f"model_config_list {{ {X.replace('tensorflow', '')} }}", "no model_type"),
        (f"model_config_list {{ {X.replace('tensorflow', 'torch')} }}", "has 'torch'"),
        (f"model_config_list {{ {X.replace('}', 'model_type: TENSORFLOW }')} }}", "no model_type"),
        ("custom_model_config {}", "custom model config"),
    ],
)
def test_an_invalid_list_changes_nothing(manager: ModelManager, text: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        manager.configure(text_format.Parse(text, model_server_config_pb2.ModelServerConfig()))
    assert manager.config == model_server_config_pb2.ModelServerConfig()


def test_a_new_model_that_fails_is_reported(manager: ModelManager, base_path: Path) -> None:
    (base_path / "2" / "saved_model.pb").write_bytes(b"no protobuf")
    with pytest.raises(UnknownError) as caught:
        configure(manager, config(base_path, "a"))
    assert caught.value.message.startswith(
        "1 model(s) did not become available: a, version 2: DATA_LOSS: "
    )
    with pytest.raises(NotFoundError):
        manager.use(model_pb2.ModelSpec(name="a"))


def test_a_new_model_without_a_version_is_reported_unless_its_files_may_come(
    manager: ModelManager, tmp_path: Path
) -> None:
    absent = config(tmp_path / "absent", "a")
    with pytest.raises(UnknownError, match=r"available: a: base path missing: .*absent"):
        configure(manager, absent)
    waiting = manager.wait_until_settled({"a"}, waits_for_files=True)
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(waiting, 0.3))


def test_nobody_waits_for_a_model_that_has_left_the_list(
    manager: ModelManager, tmp_path: Path
) -> None:
    async def wait() -> None:
        new = manager.configure(config(tmp_path / "absent", "a"))
        waiting = asyncio.ensure_future(manager.wait_until_settled(new, waits_for_files=True))
        manager.configure(model_server_config_pb2.ModelServerConfig())
        await asyncio.wait_for(waiting, 20)

    asyncio.run(wait())


def test_a_failed_load_is_tried_again_even_where_nothing_is_polled(
    base_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def fail_once(folder: VersionFolder) -> LoadedModel:
        attempts.append(folder.version)
        if len(attempts) == 1:
            raise OSError("a bad moment")
        return load(folder)

    monkeypatch.setattr(version_folders, "_RETRY_INTERVAL_S", 0.2)
    manager = ModelManager(fail_once, poll_wait_s=0)
    manager.start()
    with pytest.raises(UnknownError, match="a bad moment"):
        configure(manager, config(base_path, "a"))
    wait_for(lambda: states(manager, "a") == {2: "AVAILABLE"})
    assert attempts == [2, 2]
    manager.stop(timeout_s=10)
