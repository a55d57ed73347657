"""Change the models, versions and labels of a running server by its file or by a request."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

from serving.launcher import RunningModelServer, running_model_server
from tests.builders import wait_for
from tests.serving.server.grpc_calls import Stubs

Install = Callable[[Path, int], Path]

ALL = "model_version_policy { all {} }"
ONE = "model_version_policy { specific { versions: 1 } }"
STABLE = 'version_labels { key: "stable" value: 1 } '
CANARY = 'version_labels { key: "canary" value: 2 } '


@dataclasses.dataclass
class Served:
    """A server with a config file."""

    server: RunningModelServer
    base_path: Path
    file: Path
    channel: grpc.Channel

    def config(self, *models: tuple[str, str]) -> str:
        listed = "".join(
            f'config {{ name: "{name}" base_path: "{self.base_path}" '
            f'model_platform: "tensorflow" {rest} }}'
            for name, rest in models
        )
        return f"model_config_list {{ {listed} }}"

    def write(self, text: str) -> None:
        aside = self.file.with_suffix(".new")
        aside.write_text(text)
        aside.rename(self.file)

    def reload(self, text: str) -> Any:
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(text, request.config)
        return Stubs(self.channel).model.HandleReloadConfigRequest(request, timeout=30)

    def ask(self, name: str, label: str = "", version: int | None = None) -> int | str:
        try:
            answer = Stubs(self.channel).predict(name, label=label, version=version)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return int(answer.model_spec.version.value)

    def states(self, name: str) -> dict[int, str]:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        names = get_model_status_pb2.ModelVersionStatus.State
        rows = Stubs(self.channel).model.GetModelStatus(request, timeout=10).model_version_status
        return {row.version: names.Name(row.state) for row in rows}


@contextlib.contextmanager
def configured_server(
    folder: Path, install_version: Install, poll_wait_s: float
) -> Iterator[Served]:
    base_path, file = folder / "models", folder / "models.config"
    base_path.mkdir()
    for version in (1, 2):
        install_version(base_path, version)
    served = Served(None, base_path, file, None)  # type: ignore[arg-type]
    served.write(served.config(("retrieval", f"{ALL} {STABLE}"), ("other", ONE)))
    flags = [
        f"--model_config_file={file}",
        f"--model_config_file_poll_wait_seconds={poll_wait_s}",
        "--allow_version_labels_for_unavailable_models=true",
        "--file_system_poll_wait_seconds=0.1",
    ]
    with running_model_server(base_path, extra_flags=flags) as server:
        served.server = server
        with grpc.insecure_channel(server.grpc_target) as channel:
            served.channel = channel
            yield served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, install_version: Install) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("configured")
    with configured_server(folder, install_version, poll_wait_s=0.1) as served:
        yield served


@pytest.fixture
def served_unwatched(tmp_path: Path, install_version: Install) -> Iterator[Served]:
    """A server that reads its file once, so that the file takes no reload back."""
    with configured_server(tmp_path, install_version, poll_wait_s=0) as served:
        yield served


@pytest.fixture
def start(served: Served) -> None:
    """The state that each test begins with."""
    served.write(served.config(("retrieval", f"{ALL} {STABLE}"), ("other", ONE)))
    available = {1: "AVAILABLE", 2: "AVAILABLE"}
    wait_for(lambda: served.ask("retrieval", label="stable") == 1)
    wait_for(lambda: served.states("retrieval") == available and served.ask("other") == 1)


@pytest.mark.usefixtures("start")
def test_versions_and_labels_of_the_file_answer(served: Served) -> None:
    assert served.ask("retrieval") == 2
    assert served.ask("retrieval", label="stable") == 1
    assert served.ask("retrieval", version=1) == 1
    # A label belongs to one model.
    for model, label in (("retrieval", "x"), ("other", "stable")):
        refusal = f"INVALID_ARGUMENT: Unrecognized servable version label: {label}"
        assert served.ask(model, label=label) == refusal


@pytest.mark.usefixtures("start")
def test_labels_in_rest_paths(served: Served) -> None:
    url = f"{served.server.rest_url}/v1/models/retrieval/labels"
    body = json.dumps({"signature_name": "similar_candidates", "inputs": ["a"]}).encode()
    with urllib.request.urlopen(f"{url}/stable:predict", body, timeout=10) as answer:
        assert json.load(answer)["outputs"]
    with urllib.request.urlopen(f"{url}/stable/metadata", timeout=10) as answer:
        assert json.load(answer)["model_spec"]["version"] == "1"
    with urllib.request.urlopen(f"{url}/stable", timeout=10) as answer:
        # TensorFlow Serving ignores the label here.
        assert len(json.load(answer)["model_version_status"]) == 2
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{url}/x:predict", body, timeout=10)
    assert caught.value.code == 400


def test_a_reload_replaces_the_whole_list_and_waits_for_new_models(
    served_unwatched: Served,
) -> None:
    served = served_unwatched
    text = served.config(("retrieval", f"{ALL} {STABLE} {CANARY}"), ("added", ONE))
    response = served.reload(text)
    assert (response.status.error_code, response.status.error_message) == (0, "")
    assert served.ask("added") == 1
    assert served.ask("retrieval", label="canary") == 2
    wait_for(lambda: served.states("other") == {1: "END"})
    assert served.ask("other") == "NOT_FOUND: Servable not found for request: Latest(other)"


@pytest.mark.usefixtures("start")
def test_an_invalid_file_changes_nothing_and_is_logged(served: Served) -> None:
    served.write("model_config_list { nonsense }")
    wait_for(lambda: "config_file_refused" in served.server.log_path.read_text())
    assert served.ask("retrieval", label="stable") == 1
