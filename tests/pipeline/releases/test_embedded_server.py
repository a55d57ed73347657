"""Releases on the embedded server, from the first promotion to a restart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.errors import ReleaseError
from pipeline.releases.model_config_file import ModelConfigFile
from pipeline.releases.release import Release
from pipeline.releases.rollout import Rollout
from serving.clients import RetrievalClient
from serving.clients.model_admin import ModelAdmin
from serving.errors import InvalidArgumentError
from serving.launcher import running_model_server
from tests.serving.conftest import export_model


@pytest.fixture(scope="module")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 41 to 43 whose scores differ by a hundred each, and 44, which cannot be loaded."""
    folder = tmp_path_factory.mktemp("models") / "retrieval"
    for version in (41, 42, 43):
        export_model(folder / str(version), bias=100.0 * version)
    shutil.copytree(folder / "43", folder / "44")
    (folder / "44" / "saved_model.pb").write_bytes(b"no protobuf")
    return folder


def version_of(target: str, label: str) -> int | None:
    with RetrievalClient(target, version_label=label, query_id_name="user_id") as client:
        answer = client.recommend("u1")
        assert answer.scores[0] // 100 == answer.model_version
        return answer.model_version


@pytest.mark.slow
def test_labels_follow_a_release_and_outlive_a_restart(base_path: Path) -> None:
    file = ModelConfigFile(base_path.parent / "models.config", "retrieval", str(base_path))
    flags = ["--file_system_poll_wait_seconds=0.1"]
    file.write(Release(frozenset({41})))
    started_with = [*flags, f"--model_config_file={file.path}"]
    with (
        running_model_server(base_path, extra_flags=started_with) as server,
        ModelAdmin(server.grpc_target) as admin,
    ):
        target = server.grpc_target
        with pytest.raises(InvalidArgumentError, match="Unrecognized servable version label"):
            version_of(target, "stable")
        releases = Rollout([admin], file, 30.0)
        for change, stable, canary in (
            (lambda now: now.promoted(41), 41, 41),
            (lambda now: now.promoted(42), 42, 42),
            (lambda now: now.with_canary(43), 42, 43),
            (lambda now: now.promoted(43), 43, 43),
            (lambda now: now.rolled_back(), 42, 42),
            (lambda now: now.with_canary(43), 42, 43),
        ):
            states = releases.apply(change(file.release()))
            assert version_of(target, "stable") == stable
            assert version_of(target, "canary") == canary
            # A version that is no longer released may still be unloading.
            assert {v for v, row in states.items() if row.is_available} >= file.release().versions
        with pytest.raises(ReleaseError, match=r"version 44 .* loading it failed"):
            releases.apply(file.release().promoted(44))
        assert (version_of(target, "stable"), version_of(target, "canary")) == (42, 43)
    restarted_with = [*started_with, "--allow_version_labels_for_unavailable_models=true"]
    with running_model_server(base_path, extra_flags=restarted_with) as server:
        target = server.grpc_target
        assert (version_of(target, "stable"), version_of(target, "canary")) == (42, 43)
