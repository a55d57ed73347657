"""The model that answers, before and after a promotion."""

from pathlib import Path

import pytest

from pipeline.config.project import PipelineConfig
from pipeline.errors import ReleaseError
from pipeline.releases.answering_model import (
    AnsweringModel,
    answering_model,
    model_config_path,
    other_stable_version,
)
from pipeline.releases.model_config_file import ModelConfigFile
from pipeline.releases.release import Release


def push(config: PipelineConfig, *versions: int) -> None:
    for version in versions:
        folder = Path(config.serving_dir, str(version))
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()


def test_the_newest_version_answers_until_one_is_promoted(config: PipelineConfig) -> None:
    with pytest.raises(ReleaseError, match="nothing has been pushed"):
        answering_model(config)
    push(config, 3, 5)
    newest = answering_model(config)
    assert (newest.version, newest.reason) == (5, "newest")
    assert newest.path == f"{config.serving_dir}/5"
    assert other_stable_version(config, 5) == ""

    path = model_config_path(config)
    ModelConfigFile(path, config.serving.model_name, config.serving_dir).write(
        Release().promoted(3)
    )
    stable = answering_model(config)
    assert (stable.version, stable.reason) == (3, "stable")
    assert str(stable) == "model version 3, stable"
    assert "version 3 answers" in other_stable_version(config, 5)
    assert other_stable_version(config, 3) == ""
    assert answering_model(config, version=5).version == 5
    with pytest.raises(ReleaseError, match=r"version 4 is not in .*: 3, 5"):
        answering_model(config, version=4)


def test_a_server_is_named_by_its_address() -> None:
    assert (
        str(AnsweringModel("localhost:8500", None, "stable")) == "model of localhost:8500, stable"
    )
    assert str(AnsweringModel("localhost:8500", None, "")) == "model of localhost:8500"
