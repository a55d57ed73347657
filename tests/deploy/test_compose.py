"""The compose files mount files that exist, and Prometheus scrapes the server they start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FILES = sorted(DEPLOY.glob("compose*.yaml"))


def content(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_mounted_files_and_dockerfiles_exist(file: Path) -> None:
    for service in content(file)["services"].values():
        for volume in service.get("volumes", ()):
            source, target, mode = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")
            assert mode == "ro"
            assert target.startswith("/")
            if not source.startswith("../runs"):  # a run creates it
                assert (DEPLOY / source).exists(), f"{file.name}: {source}"
        if build := service.get("build"):
            assert (DEPLOY / build["context"] / build["dockerfile"]).resolve().is_file()


def test_prometheus_scrapes_the_page_that_the_server_has() -> None:
    (job,) = content(DEPLOY / "monitoring" / "prometheus.yaml")["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target.split(":")[0] in content(DEPLOY / "compose.yaml")["services"]
    monitoring = (DEPLOY / "config" / "monitoring.config").read_text(encoding="utf-8")
    assert f'path: "{job["metrics_path"]}"' in monitoring
