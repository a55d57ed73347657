"""Outcomes by hand-worked numbers, and the promotion of a canary by them."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.file import load
from pipeline.errors import RequestLogError
from pipeline.outcomes.outcomes import Outcomes, measure_outcomes
from tests.pipeline.releases.fake_tensorflow_serving import FakeTensorFlowServing
from tests.pipeline.two_clubs import Command, write_two_clubs

START = datetime(2024, 5, 1, tzinfo=timezone.utc)


def answer(
    minute: float, users: Sequence[str], shown: Sequence[str], version: int = 1, **fields: Any
) -> str:
    time = (START + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    entry = {
        "time": time,
        "model": "retrieval",
        "version": version,
        "label": "",
        "signature_name": "",
        "inputs": {"user": list(users), "history": [[]] * len(users)},
        "candidate_ids": [list(shown)] * len(users),
    }
    return json.dumps({**entry, **fields})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_two_clubs(tmp_path)


def write_log(folder: Path, *lines: str) -> Path:
    folder.mkdir()
    for number, line in enumerate(lines):
        (folder / f"requests-{number}.jsonl").write_text(line + "\n")
    return folder


def write_events(config: Path, *events: tuple[float, str, str]) -> str:
    rows = [
        f"{user},{item},{int((START + timedelta(minutes=minute)).timestamp())}"
        for minute, user, item in events
    ]
    path = config.parent / "later.csv"
    path.write_text("\n".join(["user,item,time", *rows]) + "\n")
    return str(path)


def measure(config: Path, log: Path, events: str, **options: Any) -> Outcomes:
    limits = {"k": 2, "within": timedelta(hours=1), **options}
    return measure_outcomes(load(config), log, events, **limits)


def test_an_event_counts_for_the_newest_answer_that_showed_its_candidate(
    config: Path, tmp_path: Path
) -> None:
    log = write_log(
        tmp_path / "log",
        answer(0, ["u", "v", ""], ["a", "b", "c"]),
        answer(10, ["u"], ["a", "d"]),
        answer(10, ["u"], ["b", "c"], version=2, label="canary"),
        answer(20, ["u"], ["a"], signature_name="similar_candidates"),
        answer(0, ["w"], [], version=2, label="canary", inputs={"user": ["w"]}),
    )
    events = write_events(
        config,
        (5, "u", "b"),  # of the first answer
        (30, "u", "a"),  # of the second one, and once more
        (31, "u", "a"),
        (30, "u", "c"),  # of version 2; the first answer showed only a and b
        (5, "v", "d"),  # not shown
        (90, "v", "a"),  # too late
        (-1, "v", "b"),  # before the answer
    )
    found = measure(config, log, events)
    first, canary = found.by_label
    assert (first.version, first.num_answers, first.num_queries) == (1, 3, 2)
    assert first.hit_rate.value == pytest.approx(2 / 3)
    assert first.ctr.value == pytest.approx(2 / 6)
    assert (canary.label, canary.num_answers, canary.num_queries) == ("canary", 2, 2)
    assert canary.hit_rate.value == pytest.approx(1 / 2)
    assert canary.ctr.value == pytest.approx(1 / 2)
    assert found.difference(1, 2).value == pytest.approx(2 / 3 - 1 / 2)
    assert first.hit_rate.low <= first.hit_rate.value <= first.hit_rate.high
    shorter = measure(config, log, events, within=timedelta(minutes=4))
    assert shorter.by_label[0].hit_rate.value == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"inputs": {"user": ["u"]}}', r"requests-0\.jsonl:1 must be a line of the server's"),
        ("{", r"requests-0\.jsonl:1 must be a line"),
        (answer(0, [""], ["a"]), r"a query ID \(input `user`\)"),
    ],
)
def test_a_log_without_answers_is_an_error(
    config: Path, tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(RequestLogError, match=message):
        measure(config, write_log(tmp_path / "log", line), write_events(config, (0, "u", "a")))


@pytest.mark.parametrize(
    ("canary_hits", "queries", "status", "message"),
    [
        (25, 30, 0, "the hit rate of canary 43 is 0.8333"),
        (16, 30, 3, "must be above 0. Nothing was promoted"),
        (9, 10, 3, "at least 20 queries"),
    ],
)
def test_only_a_better_canary_is_promoted(
    two_tower: Command,
    config: Path,
    tmp_path: Path,
    canary_hits: int,
    queries: int,
    status: int,
    message: str,
) -> None:
    base_path = config.parent.parent / "runs" / "clubs" / "serving" / "retrieval"
    for version in (42, 43):
        (base_path / str(version)).mkdir(parents=True)
        (base_path / str(version) / "saved_model.pb").touch()
    users = [f"u{number}" for number in range(queries)]
    log = write_log(
        tmp_path / "log",
        answer(0, users, ["a"], version=42),
        answer(0, [f"canary {user}" for user in users], ["a"], version=43),
    )
    hits = [*users[: queries // 2], *(f"canary {user}" for user in users[:canary_hits])]
    events = write_events(config, *((1, user, "a") for user in hits))
    server = FakeTensorFlowServing({42, 43})
    with server.running() as target:
        options = ("--config", str(config), "--target", target)
        for arguments in (["--version", "42"], ["--version", "43", "--canary"]):
            assert two_tower("promote", *arguments, *options).returncode == 0
        judged = ("--if-better", "--requests", str(log), "--events", events)
        done = two_tower("promote", *judged, *options)
    assert done.returncode == status, done.stderr
    assert message in (done.stdout + done.stderr).replace("\n", " ")
    assert server.labels["stable"] == (43 if status == 0 else 42)


def test_the_table_has_a_line_for_each_version_and_label(
    two_tower: Command, config: Path, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", answer(0, ["u", "v"], ["a", "b"]))
    events = write_events(config, (1, "u", "a"))
    done = two_tower(
        "outcomes", "-c", str(config), "--requests", str(log), "--events", events, "-k", "2"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:6] == ["1", "-", "2", "2", "0.5000", "(0.0000"]
    done = two_tower("outcomes", "-c", str(config), "--events", events)
    assert done.returncode == 2
    assert "--requests and --events must name" in done.stderr
