"""The Dockerfiles copy what exists, install from hashed locks, and do not run as root."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))


def instructions(file: Path) -> list[tuple[str, str]]:
    lines = [line for line in file.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = [line.partition(" ")[::2] for line in filter(None, joined.splitlines())]
    defaults = dict(value.split("=", 1) for name, value in pairs if name == "ARG" and "=" in value)
    return [
        (name, re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], value))
        for name, value in pairs
    ]


def ignored(file: Path, source: str) -> bool:
    """Return whether the image's .dockerignore excludes a source; the last pattern decides."""
    result = False
    for pattern in file.with_name(f"{file.name}.dockerignore").read_text("utf-8").splitlines():
        for path in (source, source.split("/")[0]):
            if fnmatch.fnmatch(path, pattern.removeprefix("!")):
                result = not pattern.startswith("!")
    return result


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_copied_sources_exist_and_reach_the_build(file: Path) -> None:
    for name, arguments in instructions(file):
        if name == "COPY" and not arguments.startswith("--from="):
            *sources, _ = arguments.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert not ignored(file, source.removeprefix("./")), source


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_packages_come_from_a_lock_with_hashes_and_the_user_is_not_root(file: Path) -> None:
    runs = [arguments for name, arguments in instructions(file) if name == "RUN"]
    installs = [part for run in runs for part in run.split("&&") if "pip install" in part]
    assert installs
    for install in installs:
        assert "--require-hashes" in install or "--editable ." in install
        assert "--no-deps" in install
    users = [arguments for name, arguments in instructions(file) if name == "USER"]
    assert int(users[-1].split(":")[0]) > 0


def test_the_pipeline_image_can_be_built_with_the_clusters_lock() -> None:
    file = ROOT / "deploy" / "pipeline.Dockerfile"
    assert not ignored(file, "deploy/kubeflow/requirements.lock")
    packages = (ROOT / "deploy/kubeflow/requirements.lock").read_text()
    assert "kfp==2.5.0" in packages
    assert "google-cloud-storage==" in packages
