"""`two-tower serve`, without the server that replaces it."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import serve
from pipeline.cli.main import app
from tests.pipeline.two_clubs import write_two_clubs


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """The command for a project with one pushed version."""
    version = tmp_path / "runs" / "clubs" / "serving" / "retrieval" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    return ["serve", "--config", str(write_two_clubs(tmp_path)), "--port", "7500"]


@pytest.mark.parametrize("options", [[], ["--explore", "--explore-port", "7502"]])
def test_the_explorer_only_starts_if_it_is_asked_for(
    command: list[str], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    served: list[list[str]] = []
    started: list[Any] = []
    monkeypatch.setattr(serve.os, "execv", lambda _, words: served.append(words))
    monkeypatch.setattr(serve.subprocess, "Popen", started.append)
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 0, done.output
    (words,) = served
    assert words[1:4] == ["-m", "serving.server", "--port=7500"]
    assert "version 1 answers, because it is the newest one" in done.output
    found = [" ".join(words) for words in started]
    assert len(found) == bool(options)
    assert all("explore --config" in words for words in found)
    assert all("--target 127.0.0.1:7500 --port 7502" in words for words in found)


def test_the_explorer_cannot_ask_a_server_without_a_grpc_port(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command[:-1], "0", "--explore"])
    assert done.exit_code == 2
    assert "--port must not be 0" in done.output


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("serve", "--port"),
        ("serve", "--rest-port"),
        ("serve", "--explore-port"),
        ("explore", "--port"),
    ],
)
def test_a_port_is_at_most_65535(command: str, option: str) -> None:
    done = CliRunner().invoke(app, [command, "--config", "clubs", option, "65536"])
    assert done.exit_code == 2
    assert option in done.output
    assert "65535" in done.output
