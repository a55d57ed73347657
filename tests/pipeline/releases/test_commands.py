"""`two-tower promote` and `two-tower rollback` as a user runs them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.releases.fake_tensorflow_serving import FakeTensorFlowServing
from tests.pipeline.two_clubs import Command, write_two_clubs


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_two_clubs(tmp_path)


def push(config: Path, *versions: int) -> Path:
    base_path = config.parent.parent / "runs" / "clubs" / "serving" / "retrieval"
    for version in versions:
        (base_path / str(version)).mkdir(parents=True)
        (base_path / str(version) / "saved_model.pb").touch()
    return base_path


def test_canary_promotion_and_rollback(two_tower: Command, config: Path) -> None:
    base_path = push(config, 42)
    server = FakeTensorFlowServing({42, 43})

    def release(*arguments: str) -> dict[str, Any]:
        done = two_tower(*arguments, "--config", str(config), "--target", target, "--json")
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    with server.running() as target:
        assert release("promote")["stable"] == 42
        push(config, 43)
        on_trial = release("promote", "--canary")
        assert (on_trial["stable"], on_trial["canary"]) == (42, 43)
        assert on_trial["versions"] == [
            {"version": 43, "labels": ["canary"], "state": "AVAILABLE"},
            {"version": 42, "labels": ["stable"], "state": "AVAILABLE"},
        ]
        promoted = release("promote")
        assert (promoted["stable"], promoted["canary"], promoted["previous"]) == (43, None, 42)
        assert release("rollback")["stable"] == 42
    kept = base_path.parent / "models.config"
    assert f'base_path: "{base_path}"' in kept.read_text()
    assert server.labels == {"stable": 42, "canary": 42}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("promote", "--version", "7"), "version 7 is not in"),
        (("promote", "--canary"), "a canary needs a stable version"),
        (("promote",), "start a server with `two-tower serve`"),
        (("rollback",), "no version is stable"),
        (("promote", "--tls-key", "key.pem"), "client_key together"),
        (("promote", "--target", "dns:///no.such.invalid:1"), "has no address"),
    ],
)
def test_what_cannot_be_done_ends_with_a_message(
    two_tower: Command, config: Path, arguments: tuple[str, ...], message: str
) -> None:
    base_path = push(config, 42)
    done = two_tower(*arguments, "--config", str(config), "--target", "127.0.0.1:1")
    assert done.returncode == 1
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert not (base_path.parent / "models.config").exists()
