"""The `two-tower` command, a project without runs, and one whole run that many tests look at."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.project import PipelineConfig
from tests.builders import project
from tests.pipeline.two_clubs import ROOT, TWO_TOWER, Command, run_to_summary, write_two_clubs


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    """The two clubs in a temporary folder, without runs."""
    return project(tmp_path)


@pytest.fixture(scope="session")
def two_tower() -> Command:
    """Run the command in its own process, from the repository's root."""

    def run(*arguments: str, timeout_s: float = 300) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*TWO_TOWER, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s
        )

    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, two_tower: Command) -> dict[str, Any]:
    """The summary of one whole run on the two clubs, with its `config_path`."""
    config = write_two_clubs(tmp_path_factory.mktemp("clubs"))
    return {**run_to_summary(two_tower, config), "config_path": config}


@pytest.fixture(scope="module")  # while it is open, no other test can use `asyncio.run`
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
