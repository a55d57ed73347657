"""The settings for Beam's engines, read as `--set` reads them and parsed as Beam does."""

from __future__ import annotations

from pathlib import Path

import pytest
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.config.file import load
from pipeline.config.sections import BeamConfig
from tests.pipeline.two_clubs import ROOT

FILES = sorted((ROOT / "deploy" / "beam").glob("*.yaml"))


def beam_section(file: Path) -> BeamConfig:
    return load("movielens_100k", [f"beam={file.read_text(encoding='utf-8')}"]).beam


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_beam_knows_every_option(file: Path) -> None:
    section = beam_section(file)
    options = PipelineOptions(section.pipeline_args)
    assert set(options.get_all_options(retain_unknown_options=True)) == {*options.get_all_options()}
    parsed = options.get_all_options(drop_default=True)
    assert parsed["runner"] == section.runner
    # No option is repeated or dropped.
    assert len(section.pipeline_args) == len({arg.split("=")[0] for arg in section.pipeline_args})
    for option in section.options:
        assert option.removeprefix("--").partition("=")[0] in parsed


@pytest.mark.parametrize("name", ["portable", "flink"])
def test_jobs_with_external_workers_do_not_end_after_a_minute(name: str) -> None:
    section = beam_section(ROOT / "deploy" / "beam" / f"{name}.yaml")
    portable = PipelineOptions(section.pipeline_args).view_as(pipeline_options.PortableOptions)
    assert portable.environment_type == "EXTERNAL"
    assert portable.job_server_timeout >= 3600
