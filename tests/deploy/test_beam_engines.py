"""The ready settings of Beam's engines: as `--set` reads them, and as Beam does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.config.file import load
from pipeline.config.project import BeamConfig
from tests.deploy.kubernetes_models import check
from tests.deploy.test_images import instructions

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "beam"
MANIFESTS = FOLDER / "flink_cluster.yaml"
FILES = sorted(set(FOLDER.glob("*.yaml")) - {MANIFESTS})


def beam_section(file: Path) -> BeamConfig:
    return load("movielens_100k", [f"beam={file.read_text(encoding='utf-8')}"]).beam


def unknown_options(arguments: list[str]) -> set[str]:
    options = PipelineOptions(arguments)
    return set(options.get_all_options(retain_unknown_options=True)) - set(
        options.get_all_options()
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_beam_knows_every_option(file: Path) -> None:
    section = beam_section(file)
    assert unknown_options(section.pipeline_args) == set()
    parsed = PipelineOptions(section.pipeline_args).get_all_options(drop_default=True)
    assert parsed["runner"] == section.runner
    # Each said once, and none left out.
    assert len(section.pipeline_args) == len({arg.split("=")[0] for arg in section.pipeline_args})
    for option in section.options:
        assert option.removeprefix("--").partition("=")[0] in parsed


def test_a_misspelt_option_is_found() -> None:
    assert unknown_options(["--environment_typ0=EXTERNAL"]) == {"environment_typ0"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_external_workers_have_what_they_need(file: Path) -> None:
    section = beam_section(file)
    if section.runner != "PortableRunner":
        return
    options = PipelineOptions(section.pipeline_args)
    portable = options.view_as(pipeline_options.PortableOptions)
    assert portable.environment_type == "EXTERNAL"
    assert re.fullmatch(r"localhost:\d+", portable.environment_config)
    assert portable.job_server_timeout >= 3600


def test_the_flink_cluster_is_what_kubernetes_knows_and_the_settings_ask_for() -> None:
    service, jobs, tasks = yaml.safe_load_all(MANIFESTS.read_text(encoding="utf-8"))
    check(service, "V1Service")
    for deployment in (jobs, tasks):
        check(deployment, "V1Deployment")
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        flink = deployment["spec"]["template"]["spec"]["containers"][0]
        properties = yaml.safe_load(flink["env"][0]["value"])
        assert properties["jobmanager.rpc.address"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == jobs["spec"]["selector"]["matchLabels"]
    section = beam_section(FOLDER / "flink.yaml")
    manager, pool = tasks["spec"]["template"]["spec"]["containers"]
    [port] = [arg.partition("=")[2] for arg in pool["args"]]
    assert f"--environment_config=localhost:{port}" in section.options
    slots = yaml.safe_load(manager["env"][0]["value"])["taskmanager.numberOfTaskSlots"]
    assert f"--parallelism={slots * tasks['spec']['replicas']}" in section.options
    job_server = re.search(r"beam_flink([0-9.]+)_job_server", (FOLDER / "flink.yaml").read_text())
    assert job_server is not None
    assert manager["image"].startswith(f"flink:{job_server[1]}-")


def test_dataflow_starts_the_boot_program_of_this_beam() -> None:
    lines = instructions(FOLDER / "dataflow.Dockerfile")
    (lock,) = re.findall(r"(?m)^apache-beam==(\S+)", (ROOT / "requirements.lock").read_text())
    assert ("FROM", f"apache/beam_python3.10_sdk:{lock} AS beam") in lines
    assert lines[-1] == ("ENTRYPOINT", '["/opt/apache/beam/boot"]')
    for file in FILES:
        for version in re.findall(r"job_server:(\S+)|apache-beam\[gcp\]==(\S+)", file.read_text()):
            assert "".join(version) == lock


def test_the_guide_names_every_file() -> None:
    guide = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    for file in FOLDER.iterdir():
        assert f"deploy/beam/{file.name}" in guide
