"""The Dockerfiles: instructions that exist, sources that are there, no root, the code once."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
# https://docs.docker.com/reference/dockerfile/
INSTRUCTIONS = {
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL",
    "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}  # fmt: skip


def instructions(file: Path) -> list[tuple[str, str]]:
    lines = [line for line in file.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = []
    defaults: dict[str, str] = {}
    for line in filter(None, joined.splitlines()):
        name, _, arguments = line.partition(" ")
        assert name in INSTRUCTIONS, f"{file.name}: {line}"
        if name == "ARG" and "=" in arguments:
            defaults.update([arguments.split("=", 1)])
        for argument, default in defaults.items() if name == "COPY" else ():
            arguments = arguments.replace(f"${{{argument}}}", default)
        pairs.append((name, arguments))
    return pairs


def ignored(file: Path, source: str) -> bool:
    """Whether the image's .dockerignore keeps a source out; the last pattern decides."""
    result = False
    for pattern in file.with_name(f"{file.name}.dockerignore").read_text("utf-8").splitlines():
        if fnmatch.fnmatch(source, pattern.removeprefix("!")):
            result = not pattern.startswith("!")
        if fnmatch.fnmatch(source.split("/")[0], pattern.removeprefix("!")):
            result = not pattern.startswith("!")
    return result


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_what_is_copied_is_there_and_reaches_the_build(file: Path) -> None:
    for name, arguments in instructions(file):
        if name == "COPY" and not arguments.startswith("--from="):
            *sources, _ = arguments.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert not ignored(file, source.removeprefix("./")), source


def test_packages_come_from_a_lock_with_hashes(file: Path) -> None:
    runs = [arguments for name, arguments in instructions(file) if name == "RUN"]
    installs = [part for run in runs for part in run.split("&&") if "pip install" in part]
    # The last stage of a compiled server has no Python of ours.
    assert installs or file.name == "tf_serving_scann.Dockerfile"
    for install in installs:
        assert "--require-hashes" in install or "--editable ." in install
        assert "--no-deps" in install


def test_the_code_is_in_the_image_once(file: Path) -> None:
    copied = [arguments for name, arguments in instructions(file) if name == "COPY"]
    assert len(copied) == len(set(copied))
    for install in (arguments for name, arguments in instructions(file) if name == "RUN"):
        assert not re.search(r"pip install (?!.*--editable)[^&]* \.(\s|$)", install)


def test_it_does_not_run_as_root(file: Path) -> None:
    users = [arguments for name, arguments in instructions(file) if name == "USER"]
    assert users
    assert int(users[-1].split(":")[0]) > 0


def test_signals_reach_the_process(file: Path) -> None:
    (entrypoint,) = (arguments for name, arguments in instructions(file) if name == "ENTRYPOINT")
    assert isinstance(json.loads(entrypoint), list)  # Else a shell takes them.
    for name, arguments in instructions(file):
        if name == "CMD":
            assert isinstance(json.loads(arguments), list)


def test_stages_and_arguments_are_declared_before_they_are_used(file: Path) -> None:
    stages: set[str] = set()
    declared: set[str] = set()
    for name, arguments in instructions(file):
        if name == "FROM":
            image, *alias = arguments.split(" AS ")
            assert ":" in image, f"{image}: a tag, or tomorrow's build is another"
            assert not image.endswith(":latest")
            stages.update(alias)
            declared = set()
        elif name == "COPY" and arguments.startswith("--from="):
            assert arguments.removeprefix("--from=").split()[0] in stages
        elif name == "ARG":
            declared.add(arguments.split("=")[0])
        elif name == "RUN":
            used = set(re.findall(r"\$\{(\w+)\}", arguments))
            assert used <= declared, used - declared


def test_what_is_fetched_is_pinned_to_a_commit() -> None:
    scann = instructions(ROOT / "deploy" / "tf_serving_scann.Dockerfile")
    arguments = dict(value.split("=", 1) for name, value in scann if name == "ARG")
    assert re.fullmatch("[0-9a-f]{40}", arguments["SCANN_COMMIT"])
    versions = {value.split()[0] for name, value in scann if name == "FROM"}
    assert versions == {"tensorflow/serving:2.16.1-devel", "tensorflow/serving:2.16.1"}


def test_the_pipeline_image_may_be_built_with_the_clusters_lock() -> None:
    file = ROOT / "deploy" / "pipeline.Dockerfile"
    assert ("ARG", "LOCK=requirements.lock") in instructions(file)
    lock = "deploy/kubeflow/requirements.lock"
    assert (ROOT / lock).exists()
    assert f"!{lock}" in file.with_name(f"{file.name}.dockerignore").read_text().splitlines()
    packages = (ROOT / lock).read_text()
    assert "kfp==2.5.0" in packages
    assert "google-cloud-storage==" in packages


def test_every_folder_of_code_is_in_the_pipeline_image() -> None:
    copied = {
        arguments.split()[0]
        for name, arguments in instructions(ROOT / "deploy" / "pipeline.Dockerfile")
        if name == "COPY"
    }
    assert {"pipeline", "components", "models", "serving", "configs", "schema"} <= copied
