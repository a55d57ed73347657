"""Releases on a server with TensorFlow Serving's rules, and what the file keeps of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from pipeline.errors import ReleaseError
from pipeline.releases.model_config_file import ModelConfigFile
from pipeline.releases.release import Release
from pipeline.releases.rollout import Rollout
from serving.clients.model_admin import ModelAdmin
from serving.errors import UnavailableError
from tests.pipeline.releases.fake_tensorflow_serving import FakeTensorFlowServing


@pytest.fixture
def file(tmp_path: Path) -> ModelConfigFile:
    return ModelConfigFile(tmp_path / "models.config", "retrieval", "/models/retrieval")


@contextmanager
def rollout(
    server: FakeTensorFlowServing,
    file: ModelConfigFile,
    timeout_s: float = 5.0,
    replicas: Sequence[FakeTensorFlowServing] = (),
) -> Iterator[Rollout]:
    with ExitStack() as stack:
        targets = [stack.enter_context(each.running()) for each in (server, *replicas)]
        admins = [stack.enter_context(ModelAdmin(target)) for target in targets]
        yield Rollout(admins, file, timeout_s)


@pytest.mark.parametrize("allow_unavailable", [True, False])
def test_from_the_newest_version_to_a_canary_and_back(
    file: ModelConfigFile, allow_unavailable: bool
) -> None:
    server = FakeTensorFlowServing({41, 42, 43}, allow_unavailable=allow_unavailable)
    with rollout(server, file) as releases:
        for change, labels, available in (
            (lambda now: now.promoted(42), {"stable": 42, "canary": 42}, {42}),
            (lambda now: now.with_canary(43), {"stable": 42, "canary": 43}, {42, 43}),
            (lambda now: now.promoted(43), {"stable": 43, "canary": 43}, {42, 43}),
            (lambda now: now.rolled_back(), {"stable": 42, "canary": 42}, {42}),
            (lambda now: now.rolled_back(41), {"stable": 41, "canary": 41}, {41}),
        ):
            states = releases.apply(change(file.release()))
            assert server.labels == labels
            assert server.available == available
            assert {v for v, status in states.items() if status.is_available} == available
            assert file.release() == Release(frozenset(available), labels)
    assert server.most_loaded == 2


def test_a_rollback_loads_nothing(file: ModelConfigFile) -> None:
    server = FakeTensorFlowServing({42, 43})
    with rollout(server, file) as releases:
        releases.apply(Release().promoted(42))
        releases.apply(file.release().promoted(43))
        server.load_s = 3600.0  # a load would not end
        server._aspired = dict.fromkeys(server._aspired, -7200.0)
        releases.apply(file.release().rolled_back())
    assert server.labels["stable"] == 42


def test_a_server_that_starts_with_the_file_has_the_same_labels(file: ModelConfigFile) -> None:
    with rollout(FakeTensorFlowServing({42, 43}), file) as releases:
        releases.apply(Release().promoted(42))
        releases.apply(file.release().with_canary(43))
    config = text_format.Parse(file.path.read_text(), ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("retrieval", "/models/retrieval")
    assert model.model_platform == "tensorflow"
    assert list(model.model_version_policy.specific.versions) == [42, 43]
    assert dict(model.version_labels) == {"stable": 42, "canary": 43}


def test_other_models_in_the_file_stay(file: ModelConfigFile) -> None:
    other = 'model_config_list { config { name: "ranking" base_path: "/models/ranking" } }'
    file.path.write_text(other)
    server = FakeTensorFlowServing({42})
    with rollout(server, file) as releases:
        releases.apply(Release().promoted(42))
    for config in (*server.configs, text_format.Parse(file.path.read_text(), ModelServerConfig())):
        assert config.model_config_list.config[0].base_path == "/models/ranking"


def test_a_version_that_the_server_does_not_see_leaves_all_as_it_was(
    file: ModelConfigFile,
) -> None:
    server = FakeTensorFlowServing({42})
    with rollout(server, file) as releases:
        releases.apply(Release().promoted(42))
        before = file.path.read_text()
        with pytest.raises(ReleaseError, match=r"version 99 .*does not list it.*/models/retrieval"):
            Rollout(releases.servers, file, 0.5).apply(file.release().promoted(99))
        assert file.path.read_text() == before
        assert server.labels == {"stable": 42, "canary": 42}
        assert server.available == {42}


def test_a_version_that_fails_to_load_is_told_with_its_error(
    file: ModelConfigFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.releases.rollout._OLD_FAILURE_S", 0.5)
    server = FakeTensorFlowServing({42, 43}, broken=frozenset({43}))
    server._aspired = {42: -60.0}
    with (
        rollout(server, file) as releases,
        pytest.raises(ReleaseError, match="failed: DATA_LOSS: no SavedModel"),
    ):
        releases.apply(Release().promoted(43))
    assert not file.path.exists()


def test_a_version_that_takes_too_long_is_told_with_its_state(file: ModelConfigFile) -> None:
    server = FakeTensorFlowServing({42, 43}, load_s=3600.0)
    with (
        rollout(server, file, timeout_s=0.5) as releases,
        pytest.raises(ReleaseError, match=r"LOADING.* --timeout"),
    ):
        releases.apply(Release().promoted(42))


def test_every_replica_has_loaded_before_a_label_moves(file: ModelConfigFile) -> None:
    quick = FakeTensorFlowServing({42, 43}, load_s=0.1, allow_unavailable=False)
    slow = FakeTensorFlowServing({42, 43}, load_s=0.8, allow_unavailable=False)
    with rollout(quick, file, replicas=[slow]) as releases:
        releases.apply(Release().promoted(42))
        releases.apply(file.release().promoted(43))
    assert quick.labels == slow.labels == {"stable": 43, "canary": 43}


def test_a_replica_that_lacks_a_version_takes_all_of_them_back(file: ModelConfigFile) -> None:
    whole, lacking = FakeTensorFlowServing({42, 43}), FakeTensorFlowServing({42})
    with rollout(whole, file, replicas=[lacking]) as releases:
        releases.apply(Release().promoted(42))
        with pytest.raises(ReleaseError, match="does not list it"):
            Rollout(releases.servers, file, 1.0).apply(file.release().promoted(43))
    assert whole.labels == lacking.labels == {"stable": 42, "canary": 42}
    assert whole.available == {42}


def test_without_a_server_nothing_is_written(file: ModelConfigFile) -> None:
    with ModelAdmin("127.0.0.1:1") as admin, pytest.raises(UnavailableError):
        Rollout([admin], file, 1.0).apply(Release().promoted(42))
    assert not file.path.exists()


def test_a_file_that_is_no_model_config_is_left_alone(file: ModelConfigFile) -> None:
    file.path.write_text("model: 1")
    server = FakeTensorFlowServing({42})
    with rollout(server, file) as releases, pytest.raises(ReleaseError, match="cannot be read"):
        releases.apply(Release().promoted(42))
    assert file.path.read_text() == "model: 1"
    assert not server.configs
