from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import prediction_log_pb2

from serving.errors import NotFoundError
from serving.server import loaded_model, model_versions, version_folders
from serving.server.loaded_model import LoadedModel
from serving.server.model_versions import ModelVersions, VersionStatus
from serving.server.version_folders import (
    VersionFolder,
    VersionPolicy,
    aspired_versions,
    find_version_folders,
)
from tests.builders import wait_for

Install = Callable[[Path, int], Path]


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    path = tmp_path / "served"
    path.mkdir()
    return path


def load(folder: VersionFolder) -> LoadedModel:
    model = loaded_model.load(folder.path, folder.version, config_pb2.ConfigProto())
    loaded_model.replay_warmup(model, folder.path)
    return model


@pytest.fixture
def versions(base_path: Path) -> ModelVersions:
    return ModelVersions("retrieval", str(base_path), VersionPolicy(), load)


def served(versions: ModelVersions) -> int | None:
    try:
        with versions.use(None) as model:
            return model.version
    except NotFoundError:
        return None


def states(versions: ModelVersions) -> dict[int, str]:
    names = VersionStatus.State
    return {version: names.Name(row.state) for version, row in versions.statuses.items()}


def test_newest_version_by_number_is_served(
    versions: ModelVersions, base_path: Path, install_version: Install
) -> None:
    for version in (9, 10):
        install_version(base_path, version)
    versions.poll()
    assert (served(versions), states(versions)) == (10, {10: "AVAILABLE"})


def test_names_that_are_no_numbers_are_ignored(base_path: Path) -> None:
    for name in ("tmp", "1.5", "-1", "٣", "2.incoming", "007"):
        (base_path / name).mkdir()
        (base_path / name / "saved_model.pb").touch()
    (base_path / "8").touch()
    assert sorted(find_version_folders(base_path) or {}) == [7]


def test_half_written_version_waits_until_it_is_complete(
    versions: ModelVersions, base_path: Path, install_version: Install
) -> None:
    install_version(base_path, 1)
    versions.poll()
    arriving = install_version(base_path, 2)
    held_back = base_path / "saved_model.pb"
    # As TFX's Pusher does: everything else first, saved_model.pb last.
    (arriving / "saved_model.pb").rename(held_back)
    versions.poll()
    assert (served(versions), states(versions)) == (1, {1: "AVAILABLE"})

    held_back.rename(arriving / "saved_model.pb")
    versions.poll()
    assert (served(versions), states(versions)) == (2, {1: "END", 2: "AVAILABLE"})


def test_new_version_is_available_before_the_old_one_goes(
    base_path: Path, install_version: Install
) -> None:
    seen = []

    def load_and_look(folder: VersionFolder) -> LoadedModel:
        seen.append((folder.version, served(versions)))
        return load(folder)

    versions = ModelVersions("retrieval", str(base_path), VersionPolicy(), load_and_look)
    for version in (1, 2):
        install_version(base_path, version)
        versions.poll()
    assert seen == [(1, None), (2, 1)]


def test_broken_version_keeps_the_old_one_and_shows_why(
    versions: ModelVersions, base_path: Path, install_version: Install
) -> None:
    install_version(base_path, 1)
    versions.poll()
    broken = install_version(base_path, 2)
    (broken / "saved_model.pb").write_bytes(b"no protobuf")
    versions.poll()
    assert (served(versions), states(versions)) == (1, {1: "AVAILABLE", 2: "END"})
    assert "saved_model.pb" in versions.statuses[2].status.error_message


def counting_versions(base_path: Path) -> tuple[ModelVersions, list[int]]:
    attempts: list[int] = []

    def count_and_load(folder: VersionFolder) -> LoadedModel:
        attempts.append(folder.version)
        return load(folder)

    return ModelVersions("m", str(base_path), VersionPolicy(), count_and_load), attempts


def test_broken_version_is_tried_again_once_it_changed_and_stands_still(
    base_path: Path, install_version: Install
) -> None:
    versions, attempts = counting_versions(base_path)
    broken = install_version(base_path, 1)
    whole = (broken / "saved_model.pb").read_bytes()
    (broken / "saved_model.pb").write_bytes(whole[:1000])
    for size in (1000, 1000, 2000, 3000, len(whole)):
        (broken / "saved_model.pb").write_bytes(whole[:size])
        versions.poll()
    assert (attempts, served(versions)) == ([1], None)
    versions.poll()
    assert (attempts, served(versions)) == ([1, 1], 1)


def test_a_copy_in_the_order_of_names_is_served_once_it_is_whole(
    base_path: Path, install_version: Install
) -> None:
    versions, attempts = counting_versions(base_path)
    arriving = install_version(base_path, 1)
    held_back = (arriving / "variables").rename(base_path / "variables")
    for _ in range(3):
        versions.poll()
    assert (attempts, states(versions)) == ([1], {1: "END"})

    # saved_model.pb is what it was; what comes after it makes the version whole.
    (arriving / "variables").mkdir()
    for file in sorted(held_back.iterdir(), reverse=True):
        file.rename(arriving / "variables" / file.name)
        versions.poll()
    versions.poll()
    assert (attempts, served(versions)) == ([1, 1], 1)


def test_what_may_pass_is_tried_again_after_a_pause_a_few_times(
    base_path: Path, install_version: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    (install_version(base_path, 1) / "saved_model.pb").write_bytes(b"no protobuf")
    monkeypatch.setattr(version_folders, "_MAX_RETRIES", 2)
    monkeypatch.setattr(version_folders, "_RETRY_INTERVAL_S", 0)
    versions, attempts = counting_versions(base_path)
    for _ in range(5):
        versions.poll()
    assert attempts == [1, 1, 1]
    assert versions.retry_wait_s() == math.inf

    monkeypatch.setattr(version_folders, "_RETRY_INTERVAL_S", 60)
    versions, attempts = counting_versions(base_path)
    for _ in range(5):
        versions.poll()
    assert attempts == [1]
    assert 50 < versions.retry_wait_s() <= 60


def test_rolling_back_by_removing_the_newest_version(
    versions: ModelVersions, base_path: Path, install_version: Install
) -> None:
    for version in (1, 2):
        install_version(base_path, version)
    versions.poll()
    shutil.rmtree(base_path / "2")
    versions.poll()
    assert (served(versions), states(versions)) == (1, {1: "AVAILABLE", 2: "END"})


def test_emptied_base_path_unloads_and_a_missing_one_does_not(
    versions: ModelVersions, base_path: Path, install_version: Install
) -> None:
    install_version(base_path, 1)
    versions.poll()
    moved = base_path.rename(base_path.with_name("moved"))
    versions.poll()
    assert served(versions) == 1

    moved.rename(base_path)
    shutil.rmtree(base_path / "1")
    versions.poll()
    assert (served(versions), states(versions)) == (None, {1: "END"})


def test_a_version_in_use_is_unloaded_after_its_last_request(
    versions: ModelVersions, base_path: Path, install_version: Install
) -> None:
    install_version(base_path, 1)
    versions.poll()
    install_version(base_path, 2)
    with versions.use(1) as model:
        polling = threading.Thread(target=versions.poll)
        polling.start()
        while versions.statuses[1].state != VersionStatus.UNLOADING:
            polling.join(0.01)
        assert served(versions) == 2
        assert model.signatures
    polling.join(10)
    assert states(versions) == {1: "END", 2: "AVAILABLE"}


def test_a_request_that_does_not_end_holds_up_neither_the_next_version_nor_its_own_end(
    versions: ModelVersions,
    base_path: Path,
    install_version: Install,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_versions, "_UNLOAD_WAIT_S", 0.01)
    install_version(base_path, 1)
    versions.poll()
    with versions.use(1):
        for version in (2, 3):
            install_version(base_path, version)
            versions.poll()
        assert (served(versions), versions.statuses[1].state) == (3, VersionStatus.UNLOADING)
    wait_for(lambda: states(versions) == {1: "END", 2: "END", 3: "AVAILABLE"})


def write_warmup(path: Path, *logs: prediction_log_pb2.PredictionLog | bytes) -> None:
    (path / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(path / loaded_model.WARMUP_REQUESTS_FILE)) as writer:
        for log in logs:
            writer.write(log if isinstance(log, bytes) else log.SerializeToString())


def predict_log(signature: str) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    return log


def test_warmup_requests_are_replayed(base_path: Path, install_version: Install) -> None:
    path = install_version(base_path, 1)
    model = loaded_model.load(path, 1, config_pb2.ConfigProto())
    assert loaded_model.replay_warmup(model, path) == 0
    write_warmup(path, predict_log(""), predict_log("recommend_excluding"))
    assert loaded_model.replay_warmup(model, path) == 2
    model.close()


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (predict_log("x"), 'Serving signature key "x" not found'),
        (prediction_log_pb2.PredictionLog(), "Unsupported log_type for warmup: None"),
        (b"\xff", "Failed to parse warmup record: number 0"),
    ],
)
def test_failing_warmup_request_fails_the_version(
    versions: ModelVersions, base_path: Path, install_version: Install, record: Any, text: str
) -> None:
    write_warmup(install_version(base_path, 1), record)
    versions.poll()
    assert states(versions) == {1: "END"}
    assert text in versions.statuses[1].status.error_message


def policy(text: str) -> Any:
    return text_format.Parse(text, VersionPolicy())


@pytest.mark.parametrize(
    ("text", "served_versions"),
    [
        ("", [4]),
        ("latest {}", [4]),
        ("latest { num_versions: 2 }", [3, 4]),
        ("latest { num_versions: 9 }", [1, 3, 4]),
        ("all {}", [1, 3, 4]),
        ("specific { versions: 1 versions: 3 versions: 2 }", [1, 3]),
        ("specific {}", []),
    ],
)
def test_policies_choose_versions(text: str, served_versions: list[int]) -> None:
    assert sorted(aspired_versions(policy(text), [1, 3, 4])) == served_versions


def test_several_versions_are_served_and_the_newest_answers_who_names_none(
    base_path: Path, install_version: Install
) -> None:
    for version in (1, 2, 3):
        install_version(base_path, version)
    versions = ModelVersions("m", str(base_path), policy("latest { num_versions: 2 }"), load)
    versions.poll()
    assert (served(versions), states(versions)) == (3, {2: "AVAILABLE", 3: "AVAILABLE"})
    with versions.use(2) as model:
        assert model.version == 2

    versions.configure(str(base_path), policy("specific { versions: 1 }"))
    versions.poll()
    assert (served(versions), states(versions)) == (1, {1: "AVAILABLE", 2: "END", 3: "END"})
    versions.unload_all()


def test_wanted_versions_that_fail_leave_the_unwanted_in_service(
    versions: ModelVersions, base_path: Path, install_version: Install
) -> None:
    install_version(base_path, 1)
    versions.poll()
    (install_version(base_path, 2) / "saved_model.pb").write_bytes(b"no protobuf")
    versions.configure(str(base_path), policy("specific { versions: 2 }"))
    versions.poll()
    assert (served(versions), states(versions)) == (1, {1: "AVAILABLE", 2: "END"})
    versions.unload_all()


def test_reloading_does_not_mix_up_versions(base_path: Path, install_version: Install) -> None:
    # Two versions at once, each with its own variables and tables under the same names.
    old = loaded_model.load(install_version(base_path, 1), 1, config_pb2.ConfigProto())
    new = loaded_model.load(install_version(base_path, 2), 2, config_pb2.ConfigProto())
    first, second = (model.signatures["serving_default"] for model in (old, new))
    first_scores = first.compute(first.feeds_from_protos({}), ("scores",))
    old.close()
    second_scores = second.compute(second.feeds_from_protos({}), ("scores",))
    new.close()
    np.testing.assert_array_equal(first_scores, second_scores)
