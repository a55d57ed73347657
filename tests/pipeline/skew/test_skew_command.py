"""`two-tower skew` on the two clubs: requests as the training timelines are, and others."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.two_clubs import Command

pytestmark = pytest.mark.slow


def ask(
    two_tower: Command, run: dict[str, Any], log: Path, bodies: list[Any], *options: str
) -> Any:
    log.write_text("\n".join(json.dumps(body) for body in bodies), encoding="utf-8")
    arguments = ["skew", "--config", str(run["config_path"]), "--requests", str(log), "--json"]
    return two_tower(*arguments, *options)


def usual(count: int) -> list[Any]:
    chance = random.Random(1)
    bodies = []
    for user in range(count):
        own = range(30) if user % 2 else range(30, 60)
        history = [f"item é{item}" for item in chance.sample(own, 8)]
        club = "red" if user % 2 else "blue"
        inputs = {"user": [f"user {user}"], "club": [club], "history": [history]}
        bodies.append({"inputs": inputs})
    return bodies


def test_requests_are_held_against_training(
    finished_run: dict[str, Any], two_tower: Command, tmp_path: Path
) -> None:
    limits = ("--set", "skew.distances={club: {l_infinity: 0.1}, item: {l_infinity: 0.1}}")
    done = ask(two_tower, finished_run, tmp_path / "log", usual(240), *limits)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["num_requests"], report["num_queries"]) == (240, 240)
    values = {finding["setting"]: finding["value"] for finding in report["findings"]}
    assert values["skew.max_unknown"] == 0
    assert values["skew.max_missing"] == 0
    assert values["skew.distances.club.l_infinity"] < 0.01

    # A client that forgets the club, asks for one club alone, and knows items that are none.
    bodies = usual(240)[1::2]
    for body in bodies[:60]:
        del body["inputs"]["club"]
        body["inputs"]["history"] = [["item x"] * 8]
    done = ask(two_tower, finished_run, tmp_path / "log", bodies, *limits)
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert report["skewed"] is True
    values = {finding["setting"]: finding["value"] for finding in report["findings"]}
    assert values["skew.max_unknown"] == 0.5
    assert values["skew.max_missing"] == 0.5
    assert values["skew.distances.club.l_infinity"] == pytest.approx(0.5, abs=0.01)
    beyond = [finding["text"] for finding in report["findings"] if finding["exceeded"]]
    assert any("(50.0% in requests, 0.0% in training timelines)" in text for text in beyond)


def test_requests_without_a_history_are_beyond(
    finished_run: dict[str, Any], two_tower: Command, tmp_path: Path
) -> None:
    bodies = usual(20)
    for body in bodies:
        body["inputs"]["history"] = [[]]
    done = ask(two_tower, finished_run, tmp_path / "log", bodies)
    assert done.returncode == 3, done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert any("no request has a history" in found["text"] for found in findings)
    found = {finding["setting"]: (finding["value"], finding["exceeded"]) for finding in findings}
    assert found["skew.max_missing_history"] == (1.0, True)
    assert found["skew.max_unknown"] == (None, True)  # nothing to be measured
    # Without a threshold a distance that cannot be measured is shown, and no more.
    assert found["skew.distances.item.l_infinity"] == (None, False)
    assert "skew.max_unknown_queries" not in found


@pytest.mark.parametrize("content", ["", '{"inputs": {"user": [], "history": []}}'])
def test_a_file_without_a_query_says_nothing_of_skew(
    finished_run: dict[str, Any], two_tower: Command, tmp_path: Path, content: str
) -> None:
    (tmp_path / "log").write_text(content)
    path = str(finished_run["config_path"])
    done = two_tower("skew", "--config", path, "--requests", str(tmp_path / "log"))
    assert done.returncode == 1
    assert "must have at least one query" in done.stderr


def test_a_file_that_is_no_log_ends_with_its_name(
    finished_run: dict[str, Any], two_tower: Command, tmp_path: Path
) -> None:
    done = ask(two_tower, finished_run, tmp_path / "log", [{"x": 1}])
    assert done.returncode == 1
    assert f"{tmp_path / 'log'}:1 must be the body of a predict request" in done.stderr


def test_metadata_that_cannot_be_read_ends_with_what_is_wrong(
    finished_run: dict[str, Any], two_tower: Command, tmp_path: Path
) -> None:
    settings = (
        "--set",
        "metadata={backend: mysql, host: 127.0.0.1, port: 9, database: runs, user: me, "
        f"password_file: {tmp_path / 'none'}}}",
    )
    done = ask(two_tower, finished_run, tmp_path / "log", usual(1), *settings)
    assert done.returncode == 1
    assert "`metadata.password_file`" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "none").write_text("secret")
    done = ask(two_tower, finished_run, tmp_path / "log", usual(1), *settings)
    assert done.returncode == 1
    assert "mysql at 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr
