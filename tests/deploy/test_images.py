"""The Dockerfiles: sources that are there, packages from locks with hashes, no root."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))


def instructions(file: Path) -> list[tuple[str, str]]:
    """Return the names and arguments of a Dockerfile's instructions; variables have defaults."""
    lines = [line for line in file.read_text("utf-8").splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    for name, default in re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE):
        text = text.replace(f"${{{name}}}", default)
    pairs = [line.partition(" ") for line in text.splitlines() if line]
    return [(name, arguments) for name, _, arguments in pairs]


def is_ignored(file: Path, source: str) -> bool:
    """Return whether the .dockerignore of an image excludes a source; the last pattern decides."""
    ignored = False
    for pattern in file.with_name(f"{file.name}.dockerignore").read_text("utf-8").splitlines():
        parents = (source, source.partition("/")[0])
        if any(fnmatch(name, pattern.removeprefix("!")) for name in parents):
            ignored = not pattern.startswith("!")
    return ignored


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_image_copies_what_exists_and_runs_without_root(file: Path) -> None:
    found = instructions(file)
    copies = (words.split() for name, words in found if name == "COPY")
    sources = [source for words in copies if "--from" not in words[0] for source in words[:-1]]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not is_ignored(file, source), source
        if source.endswith(".lock"):
            assert_hashed(source)
    installs = [part for name, words in found if name == "RUN" for part in words.split("&&")]
    for install in (part for part in installs if "pip install" in part):
        assert "--no-deps" in install
        assert "--require-hashes" in install or "--editable ." in install
    last_stage = found[max(at for at, (name, _) in enumerate(found) if name == "FROM") :]
    users = [words for name, words in last_stage if name == "USER"]
    assert users
    assert int(users[-1].split(":")[0]) > 0


def test_the_lock_for_clusters_has_hashes_too() -> None:
    assert "deploy/kubeflow/requirements.lock" in (ROOT / "deploy/pipeline.Dockerfile").read_text()
    assert_hashed("deploy/kubeflow/requirements.lock")


def assert_hashed(lock: str) -> None:
    """Assert that each requirement of a lock has a version and a hash."""
    text = (ROOT / lock).read_text("utf-8").replace("\\\n", "")
    requirements = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert requirements
    for requirement in requirements:
        assert re.match(r"\S+==\S+ .*--hash=sha256:[0-9a-f]{64}", requirement), requirement
