"""Ten days of a use whose data keeps coming: growth, a broken day, a late one, a re-delivery.

Every run is a real one, through the command, in this process: TensorFlow is imported once. One
server runs all along; after each day it is asked over gRPC.
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


class Use:
    """A use that gets a day after the other, and the server on it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.config = write_two_clubs(
            folder,
            events={"files": "day-{SPAN}/v{VERSION}/events.csv", "spans": {"window": 3}},
            candidates={"file": "items-{SPAN}.csv", "features": {}},
            training={"epochs": 2, "warm_start": True},
            # Of so few events nobody can tell which model is better.
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
        """One new item a day, and events of it and of the others."""
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
        """Returns the exit code, the JSON object where there is one, and what went wrong."""
        from pipeline.cli.main import app

        name, *rest = arguments
        done = CliRunner().invoke(app, [name, "--config", str(self.config), *rest, "--json"])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, json.loads(done.stdout or "null"), done.stderr

    def run(self, *options: str) -> dict[str, Any]:
        """A run that must end with a pushed model."""
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
        """The server answers with this version, which knows the day's item and no later one."""
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
        """What lies there to be served."""
        return {int(path.name) for path in self._serving_dir.iterdir() if path.name.isdecimal()}

    def restart_server(self) -> None:
        """Stops it; the next question starts another."""
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
def use(tmp_path: Path) -> Iterator[Use]:
    with ExitStack() as stack:
        yield Use(tmp_path, stack)


def test_ten_days(use: Use) -> None:
    # Day 1: nothing to learn from yet, because the only span is held out.
    use.deliver(1)
    code, _, problem = use.command("run")
    assert code == 1
    assert "split `train` has no events" in problem

    # Days 2 and 3: the window and the catalogue grow, each model begins with the one before.
    use.deliver(2)
    second = use.run()
    assert use.days(second) == ["1v1", "2v1"]
    use.assert_served(second["pushed_version"], 2)
    use.deliver(3)
    third = use.run()
    assert use.days(third) == ["1v1", "2v1", "3v1"]
    assert third["warm_start"]["vocabularies"]["item"]["new"] == 1
    assert third["pushed_version"] > second["pushed_version"]
    use.assert_served(third["pushed_version"], 3)

    # Day 4: the oldest day leaves the window. Asked twice, nothing is new.
    use.deliver(4)
    fourth = use.run()
    assert use.days(fourth) == ["2v1", "3v1", "4v1"]
    use.assert_served(fourth["pushed_version"], 4)
    code, again, _ = use.command("run")
    assert (code, again["skipped"]) == (4, True)

    # Day 5 is broken: the run stops and names the row, yesterday's model goes on serving.
    use.deliver(5, broken=True)
    code, _, problem = use.command("run")
    assert code == 1
    assert "not a time" in problem
    use.assert_served(fourth["pushed_version"], 4)

    # Day 6 comes, and the broken one is still in the window.
    use.deliver(6)
    assert use.command("run")[0] == 1
    use.assert_served(fourth["pushed_version"], 4)

    # The fifth is delivered again: it replaces what was broken and is counted once.
    use.deliver(5, version=2)
    sixth = use.run()
    assert use.days(sixth) == ["4v1", "5v2", "6v1"]
    use.assert_served(sixth["pushed_version"], 6)

    # Day 7 is late: nothing is new. Then day 8 comes without it.
    assert use.command("run")[0] == 4
    use.deliver(8)
    code, _, problem = use.command("run")
    assert code == 1
    assert "span 7 of 6 to 8 is missing" in problem
    use.assert_served(sixth["pushed_version"], 6)
    eighth = use.run("--set", "events.spans.missing=warn")
    assert use.days(eighth) == ["6v1", "8v1"]
    assert eighth["spans"]["missing"] == ["7"]
    use.assert_served(eighth["pushed_version"], 8)

    # Day 9; day 7 has come at last.
    use.deliver(7)
    use.deliver(9)
    ninth = use.run()
    assert use.days(ninth) == ["7v1", "8v1", "9v1"]
    assert [(day["span"], day["baseline"]) for day in ninth["drift"]["earlier"]] == [("7", "6")]
    use.assert_served(ninth["pushed_version"], 9)

    # What is cleaned away is shown first, and is what nobody needs: see the tenth day.
    _, shown, _ = use.command("clean", "--keep", "2")
    assert {found["kind"] for found in shown["removable"]} >= {"artifact", "version", "log"}
    assert all(Path(found["path"]).exists() for found in shown["removable"])
    code, removed, problem = use.command("clean", "--keep", "2", "--yes")
    assert code == 0, problem
    assert (removed["removable"], removed["size_bytes"]) == (
        shown["removable"],
        shown["size_bytes"],
    )
    assert not any(Path(found["path"]).exists() for found in removed["removable"])
    assert use.versions() == {eighth["pushed_version"], ninth["pushed_version"]}
    assert use.command("clean", "--keep", "2")[1]["removable"] == []
    assert use.command("run")[0] == 4
    use.assert_served(ninth["pushed_version"], 9)

    # Of day 10 a third is there: nothing is trained on that.
    use.deliver(10, users=40)
    code, _, problem = use.command("run")
    assert code == 3
    assert "span 10 has drifted from 9: events: number (240 after 720)" in problem
    use.assert_served(ninth["pushed_version"], 9)

    # All of day 10, and a better day 9 with it.
    use.deliver(10, version=2)
    use.deliver(9, version=2)
    tenth = use.run()
    assert use.days(tenth) == ["8v1", "9v2", "10v2"]
    assert (tenth["drift"]["baseline"], tenth["gates"]["drift"]) == ("9", "passed")
    again = [(day["span"], day["version"], day["baseline"]) for day in tenth["drift"]["earlier"]]
    assert again == [("9", 2, "8")]
    assert tenth["warm_start"]["vocabularies"]["item"]["new"] == 1
    use.assert_served(tenth["pushed_version"], 10)

    code, runs, problem = use.command("runs")
    assert code == 0, problem
    assert [(run["span"], run["state"]) for run in reversed(runs)] == [
        ("1", "failed"),
        ("2", "complete"),
        ("3", "complete"),
        ("4", "complete"),
        ("5", "failed"),
        ("6", "failed"),
        ("6", "complete"),
        ("", "failed"),  # a span was missing: nothing was read
        ("8", "complete"),
        ("9", "complete"),
        ("10", "refused"),
        ("10", "complete"),
    ]
    pushed = [run["pushed_version"] for run in reversed(runs) if run["state"] == "complete"]
    assert pushed == sorted(set(pushed))

    # The cache and a new server find what they need.
    forced = use.run("--force")
    assert forced["component_states"]["Trainer"] == "cached"
    assert forced["newly_pushed"] is False
    use.restart_server()
    use.assert_served(tenth["pushed_version"], 10)
