"""Ten days of new data: growth, a broken day, a late day, a day that is delivered again.

Every run is a real one, through the command, in this process, so that TensorFlow is imported once.
One server runs all the time and answers gRPC requests after each day.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from serving.clients import RetrievalClient
from serving.launcher import running_model_server
from tests.pipeline.two_clubs import write_two_clubs

pytestmark = pytest.mark.long

DAY_S = 86_400
FIRST_ITEMS = 40


class Project:
    """A project that gets one day of data after the other, with a server."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.config = write_two_clubs(
            folder,
            events={"files": "day-{SPAN}/v{VERSION}/events.csv", "spans": {"window": 3}},
            candidates={"file": "items-{SPAN}.csv", "features": {}},
            training={"epochs": 2, "warm_start": True},
            # With so few events the difference between two models is noise.
            evaluation={"min_lift": 0, "min_lift_over_last": 0},
            index={"k": 10},
            drift={"action": "stop", "distances": {"club": {"l_infinity": 0.2}}},
        )
        content = yaml.safe_load(self.config.read_text())
        content["split"] = {"method": "temporal", "eval_from": "newest_span"}
        self.config.write_text(yaml.safe_dump(content))
        self._stack = stack
        self._client: RetrievalClient | None = None

    def deliver(
        self, day: int, version: int = 1, *, broken: bool = False, users: int = 120
    ) -> None:
        """Write a day's catalogue, with one new item, and its events."""
        num_items = FIRST_ITEMS + day
        items = [f"item é{i},Thing number {i},{i % 7}.5" for i in range(num_items)]
        text = "\n".join(["item,label,price", *items]) + "\n"
        (self.folder / f"items-{day}.csv").write_text(text, encoding="utf-8")
        chance = random.Random(day)
        rows = ["user,item,time"]
        for user in range(users):
            own = [item for item in range(num_items) if item % 2 == user % 2]
            for step, item in enumerate([*chance.sample(own, 5), own[-1]]):
                moment = "?" if broken and user == 7 else str(day * DAY_S + 60 * user + step)
                rows.append(f"user {user},item é{item},{moment}")
        file = self.folder / f"day-{day}" / f"v{version}" / "events.csv"
        file.parent.mkdir(parents=True)
        file.write_text("\n".join(rows) + "\n", encoding="utf-8")

    def command(self, *arguments: str) -> tuple[int, Any, str]:
        """Return the exit code, the JSON object if there is one, and standard error."""
        from pipeline.cli.main import app

        name, *rest = arguments
        done = CliRunner().invoke(app, [name, "--config", str(self.config), *rest, "--json"])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, json.loads(done.stdout or "null"), done.stderr

    def run(self, *options: str) -> dict[str, Any]:
        """Run, and check that a model was pushed."""
        code, summary, problem = self.command("run", *options)
        assert code == 0, problem
        assert summary["pushed_version"] is not None
        found: dict[str, Any] = summary
        return found

    def days(self, summary: dict[str, Any]) -> list[str]:
        return [
            found["span"] + f"v{found['version']}" for found in summary["spans"]["interactions"]
        ]

    def assert_served(self, version: int, newest_day: int) -> None:
        """Check that the server uses this version, which knows the day's item but no later one."""
        client = self._server()
        deadline = time.monotonic() + 60
        while (answer := client.recommend("user 1", k=10)).model_version != version:
            assert time.monotonic() < deadline, f"the server stays with {answer.model_version}"
            time.sleep(0.2)
        assert len(answer.candidate_ids) == 10
        newest = FIRST_ITEMS + newest_day - 1
        assert len(client.similar(f"item é{newest}", k=10).candidate_ids) == 10
        assert client.similar(f"item é{newest + 1}", k=10).candidate_ids == ()

    def versions(self) -> set[int]:
        """Return the versions in the serving folder."""
        return {int(path.name) for path in self._serving_dir.iterdir() if path.name.isdecimal()}

    def restart_server(self) -> None:
        """Stop the server; the next request starts another."""
        self._stack.close()
        self._client = None

    @property
    def _serving_dir(self) -> Path:
        return self.folder / "runs" / "clubs" / "serving" / "retrieval"

    def _server(self) -> RetrievalClient:
        if self._client is None:
            server = self._stack.enter_context(
                running_model_server(
                    self._serving_dir, extra_flags=["--file_system_poll_wait_seconds=1"]
                )
            )
            self._client = self._stack.enter_context(
                RetrievalClient(
                    server.grpc_target,
                    "retrieval",
                    query_id_name="user",
                    candidate_id_name="item",
                )
            )
        return self._client


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with ExitStack() as stack:
        yield Project(tmp_path, stack)


def test_ten_days(project: Project) -> None:
    # Day 1: there is no training data, because the only span is held out.
    project.deliver(1)
    code, _, problem = project.command("run")
    assert code == 1
    assert "split `train` has no events" in problem

    # Days 2 and 3: the window and the catalogue grow, each model starts from the one before.
    project.deliver(2)
    second = project.run()
    assert project.days(second) == ["1v1", "2v1"]
    project.assert_served(second["pushed_version"], 2)
    project.deliver(3)
    third = project.run()
    assert project.days(third) == ["1v1", "2v1", "3v1"]
    assert third["warm_start"]["vocabularies"]["item"]["new"] == 1
    assert third["pushed_version"] > second["pushed_version"]
    project.assert_served(third["pushed_version"], 3)

    # Day 4: the oldest day leaves the window. A second run finds nothing new.
    project.deliver(4)
    fourth = project.run()
    assert project.days(fourth) == ["2v1", "3v1", "4v1"]
    project.assert_served(fourth["pushed_version"], 4)
    code, again, _ = project.command("run", "--detailed-exit-code")
    assert (code, again["skipped"]) == (4, True)

    # Day 5 is broken: the run stops and names the row, and yesterday's model stays.
    project.deliver(5, broken=True)
    code, _, problem = project.command("run")
    assert code == 1
    assert "not a time" in problem
    project.assert_served(fourth["pushed_version"], 4)

    # Day 6 arrives, but the broken day is still in the window.
    project.deliver(6)
    assert project.command("run")[0] == 1
    project.assert_served(fourth["pushed_version"], 4)

    # Day 5 is delivered again and replaces the broken version.
    project.deliver(5, version=2)
    sixth = project.run()
    assert project.days(sixth) == ["4v1", "5v2", "6v1"]
    project.assert_served(sixth["pushed_version"], 6)

    # Day 7 is late, so nothing is new. Then day 8 arrives without it.
    assert project.command("run", "--detailed-exit-code")[0] == 4
    project.deliver(8)
    code, _, problem = project.command("run")
    assert code == 1
    assert "span 7 of 6 to 8 is missing" in problem
    project.assert_served(sixth["pushed_version"], 6)
    eighth = project.run("--set", "events.spans.missing=warn", "--push")
    assert project.days(eighth) == ["6v1", "8v1"]
    assert eighth["spans"]["missing"] == ["7"]
    project.assert_served(eighth["pushed_version"], 8)

    # Day 9 arrives, and at last day 7.
    project.deliver(7)
    project.deliver(9)
    ninth = project.run()
    assert project.days(ninth) == ["7v1", "8v1", "9v1"]
    assert [(day["span"], day["reference"]) for day in ninth["drift"]["earlier"]] == [("7", "6")]
    project.assert_served(ninth["pushed_version"], 9)

    # Cleaning shows first what it removes; day 10 shows that nothing else is needed.
    _, shown, _ = project.command("clean", "--keep", "2")
    assert {found["kind"] for found in shown["removable"]} >= {"artifact", "version", "log"}
    assert all(Path(found["path"]).exists() for found in shown["removable"])
    code, removed, problem = project.command("clean", "--keep", "2", "--yes")
    assert code == 0, problem
    assert (removed["removable"], removed["size_bytes"]) == (
        shown["removable"],
        shown["size_bytes"],
    )
    assert not any(Path(found["path"]).exists() for found in removed["removable"])
    assert project.versions() == {eighth["pushed_version"], ninth["pushed_version"]}
    assert project.command("clean", "--keep", "2")[1]["removable"] == []
    assert project.command("run", "--detailed-exit-code")[0] == 4
    project.assert_served(ninth["pushed_version"], 9)

    # A third of day 10 is there: the drift gate refuses it.
    project.deliver(10, users=40)
    code, _, problem = project.command("run")
    assert code == 3
    assert "span 10 has drifted from span 9: events: their number (240 after 720)" in problem
    project.assert_served(ninth["pushed_version"], 9)

    # The whole of day 10, and a new version of day 9.
    project.deliver(10, version=2)
    project.deliver(9, version=2)
    tenth = project.run()
    assert project.days(tenth) == ["8v1", "9v2", "10v2"]
    assert (tenth["drift"]["reference"], tenth["gates"]["drift"]) == ("9", "passed")
    again = [(day["span"], day["version"], day["reference"]) for day in tenth["drift"]["earlier"]]
    assert again == [("9", 2, "8")]
    assert tenth["warm_start"]["vocabularies"]["item"]["new"] == 1
    project.assert_served(tenth["pushed_version"], 10)

    code, runs, problem = project.command("runs")
    assert code == 0, problem
    assert [(run["span"], run["state"]) for run in reversed(runs)] == [
        ("1", "failed"),
        ("2", "complete"),
        ("3", "complete"),
        ("4", "complete"),
        ("5", "failed"),
        ("6", "failed"),
        ("6", "complete"),
        ("", "failed"),  # a span was missing, so nothing was read
        ("8", "complete"),
        ("9", "complete"),
        ("10", "refused"),
        ("10", "complete"),
    ]
    pushed = [run["pushed_version"] for run in reversed(runs) if run["state"] == "complete"]
    assert pushed == sorted(set(pushed))

    # The cache and a new server still work after cleaning.
    forced = project.run("--force")
    assert forced["component_states"]["Trainer"] == "cached"
    assert forced["newly_pushed"] is False
    project.restart_server()
    project.assert_served(tenth["pushed_version"], 10)
