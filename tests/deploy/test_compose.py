"""The compose files against the part of the Compose specification that they use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted(DEPLOY.glob("compose*.yaml"))

_TEXTS = {"type": "array", "items": {"type": "string"}}
_DURATION = {"type": "string", "pattern": r"^([0-9]+(us|ms|s|m|h))+$"}
# https://github.com/compose-spec/compose-spec: nothing is allowed that is not listed, so that a
# misspelt key is found.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["image"],
                "properties": {
                    "image": {"type": "string"},
                    "build": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["context"],
                        "properties": {
                            "context": {"type": "string"},
                            "dockerfile": {"type": "string"},
                        },
                    },
                    "command": _TEXTS,
                    "ports": {
                        "type": "array",
                        "items": {
                            "type": "string",
                            "pattern": r"^(127\.0\.0\.1:)?[0-9]+:[0-9]+$",
                        },
                    },
                    "volumes": _TEXTS,
                    "read_only": {"type": "boolean"},
                    "stop_grace_period": _DURATION,
                    "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
                    "depends_on": _TEXTS,
                    "healthcheck": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["test"],
                        "properties": {
                            "test": _TEXTS,
                            "interval": _DURATION,
                            "timeout": _DURATION,
                            "start_period": _DURATION,
                            "retries": {"type": "integer"},
                        },
                    },
                },
            },
        },
    },
}


def content(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_compose_file_follows_the_specification(file: Path) -> None:
    jsonschema.validate(content(file), SCHEMA)


def test_a_misspelt_key_is_found() -> None:
    wrong = {"services": {"a": {"image": "b", "comand": []}}}
    with pytest.raises(jsonschema.ValidationError, match="comand"):
        jsonschema.validate(wrong, SCHEMA)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_mounted_files_and_dockerfiles_are_there(file: Path) -> None:
    for service in content(file)["services"].values():
        for volume in service.get("volumes", ()):
            source, target, mode = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")
            assert mode == "ro"
            assert target.startswith("/")
            if not source.startswith("../runs"):  # made by a run
                assert (DEPLOY / source).exists(), f"{file.name}: {source}"
        build = service.get("build")
        if build:
            assert (DEPLOY / build["context"] / build["dockerfile"]).resolve().is_file()


def test_the_scann_file_differs_from_the_stock_one_in_the_image_alone() -> None:
    stock = content(DEPLOY / "compose.stock.yaml")["services"]["retrieval"]
    scann = content(DEPLOY / "compose.scann.yaml")["services"]["retrieval"]
    assert stock["image"] == "tensorflow/serving:2.16.1"
    assert scann["image"].startswith("${TFS_SCANN_IMAGE:?")
    assert {**scann, "image": ""} == {**stock, "image": ""}


def test_prometheus_asks_the_page_that_the_server_has() -> None:
    scrape = content(DEPLOY / "monitoring" / "prometheus.yaml")
    (job,) = scrape["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target.split(":")[0] in content(DEPLOY / "compose.yaml")["services"]
    monitoring = (DEPLOY / "config" / "monitoring.config").read_text(encoding="utf-8")
    assert f'path: "{job["metrics_path"]}"' in monitoring
    mounted = content(DEPLOY / "compose.monitoring.yaml")["services"]["prometheus"]["volumes"]
    for rules in scrape["rule_files"]:
        assert any(volume.split(":")[1] == rules for volume in mounted)
