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
    assert any("missing in 50.0% of requests, in 0.0% of training" in text for text in beyond)


def test_a_file_that_is_no_log_ends_with_its_name(
    finished_run: dict[str, Any], two_tower: Command, tmp_path: Path
) -> None:
    done = ask(two_tower, finished_run, tmp_path / "log", [{"x": 1}])
    assert done.returncode == 1
    assert f"{tmp_path / 'log'}:1 must be the body of a predict request" in done.stderr
