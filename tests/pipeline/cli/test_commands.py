import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli.command import command
from pipeline.cli.options import Tls
from tests.pipeline.two_clubs import ROOT, Command, write_two_clubs

_HELP = """
import sys, typer
import contextlib, io
from pipeline.cli.main import app, main
for command in typer.main.get_command(app).commands:
    sys.argv = ["two-tower", command, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main()
    assert "Usage" in shown.getvalue() and "<bool>" not in shown.getvalue(), command
slow = {"tensorflow", "tfx", "apache_beam", "polars", "pyarrow", "numpy"} & set(sys.modules)
assert not slow, slow
"""


def test_help_imports_nothing_slow() -> None:
    done = subprocess.run([sys.executable, "-c", _HELP], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@command
def _buy(
    name: Annotated[str, typer.Argument()],
    tls: Tls,
    num_items: int = 1,
    as_json: bool = False,
    is_gift: bool = False,
) -> None:
    """Buy something.

    Args:
        name (NAME): Name of the
            thing.
        num_items: Number of items.
        is_gift: Wrap them.
    """
    print(name, num_items, as_json, is_gift, tls.tls_ca)


def test_options_come_from_the_signature_and_the_docstring() -> None:
    app = typer.Typer()
    app.command()(_buy)
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).output
    for text in ("NAME", "Name of the thing.", "--num-items", "--is-gift ", "--json", "--verbose"):
        assert text in shown
    assert "--no-is-gift" not in shown
    assert "Args" not in shown
    arguments = ["x", "--num-items", "2", "--json", "--tls-ca", "ca.pem"]
    assert CliRunner().invoke(app, arguments).output.split() == [
        "x",
        "2",
        "True",
        "False",
        "ca.pem",
    ]


def test_config_prints_every_setting_and_can_be_read_again(
    two_tower: Command, tmp_path: Path
) -> None:
    config = write_two_clubs(tmp_path)
    printed = two_tower("config", "--config", str(config), "--set", "training.epochs=7")
    assert printed.returncode == 0
    again = tmp_path / "configs" / "again.yaml"
    again.write_text(printed.stdout)
    reread = two_tower("config", "--config", str(again), "--json")
    content = json.loads(reread.stdout)
    assert content["training"]["epochs"] == 7
    assert content["model"]["dimension"] == 8


def test_a_wrong_setting_ends_with_its_message_and_no_traceback(two_tower: Command) -> None:
    done = two_tower("run", "--config", "movielens_100k", "--set", "modle.dimension=3")
    assert done.returncode == 1
    assert "did you mean `model`?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("recommend", "--query-id", "1"),
        ("similar", "--candidate-id", "1"),
        ("batch", "--output", "recommendations"),
        ("serve",),
        ("explore",),
        ("promote",),
    ],
)
@pytest.mark.parametrize(
    ("serving", "messages"),
    [
        ({}, ["nothing has been pushed", "two-tower run --config"]),
        ({"directory": "gs://b/m"}, ["`serving.directory` gs://b/m is not a folder of this"]),
    ],
)
def test_asking_before_a_push_or_without_a_local_folder_says_what_to_do(
    two_tower: Command,
    tmp_path: Path,
    arguments: tuple[str, ...],
    serving: dict[str, str],
    messages: list[str],
) -> None:
    config = write_two_clubs(tmp_path, serving=serving)
    done = two_tower(*arguments, "--config", str(config))
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert all(message in said for message in messages)
    asks_one_model = arguments[0] not in ("serve", "promote")
    assert ("with --run" in said) == (asks_one_model and not serving)
    assert not (tmp_path / "gs:").exists()


def test_recommending_needs_a_query_or_a_history(two_tower: Command, tmp_path: Path) -> None:
    done = two_tower("recommend", "--config", str(write_two_clubs(tmp_path)))
    assert done.returncode == 2
    assert "--query-id" in done.stderr
    assert "--history" in done.stderr


@pytest.mark.slow
class TestServed:
    def ask(
        self, two_tower: Command, run: dict[str, Any], command: str, *arguments: str
    ) -> dict[str, Any]:
        done = two_tower(command, "--config", str(run["config_path"]), "--json", *arguments)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def test_a_known_query_gets_unseen_items_of_its_own_half(
        self, two_tower: Command, finished_run: dict[str, Any]
    ) -> None:
        answer = self.ask(two_tower, finished_run, "recommend", "--query-id", "user 1", "-k", "5")
        assert answer["num_history"] == 14
        items = [int(row["candidate_id"].removeprefix("item é")) for row in answer["candidates"]]
        assert len(items) == 5
        assert all(item < 30 for item in items)
        assert all(
            row["label"] == f"Thing number {item}"
            for item, row in zip(items, answer["candidates"], strict=True)
        )
        assert answer["model_version"] == finished_run["pushed_version"]

    def test_an_unknown_query_is_answered_from_its_history(
        self, two_tower: Command, finished_run: dict[str, Any]
    ) -> None:
        answer = self.ask(
            two_tower, finished_run, "recommend", "--history", "item é40,item é41,item é42",
            "--exclude", "item é43", "-k", "10",
        )  # fmt: skip
        items = {int(row["candidate_id"].removeprefix("item é")) for row in answer["candidates"]}
        assert not items & {40, 41, 42, 43}
        assert sum(item >= 30 for item in items) >= 8

    def test_an_empty_answer_is_explained(
        self, two_tower: Command, finished_run: dict[str, Any]
    ) -> None:
        every = ",".join(f"item é{number}" for number in range(60))
        words = ["--query-id", "user 1", "--exclude", every, "--json"]
        done = two_tower("recommend", "--config", str(finished_run["config_path"]), *words)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["candidates"] == []
        assert "no candidate passes the filters and exclusions" in done.stderr

    def test_a_run_does_not_differ_from_itself(
        self, two_tower: Command, finished_run: dict[str, Any]
    ) -> None:
        runs = [finished_run["run_id"]] * 2
        done = two_tower("runs", "compare", *runs, "--config", str(finished_run["config_path"]))
        assert done.returncode == 0, done.stderr
        value = f"{finished_run['metrics']['model']['hit_rate@10']:.4f}"
        (line,) = (line for line in done.stdout.splitlines() if "hit_rate@10" in line)
        assert line.split(maxsplit=2)[1:] == [value, f"{value} (+0.0000 to +0.0000)"]

    def test_the_queries_of_a_file_get_recommendations_in_files(
        self, two_tower: Command, finished_run: dict[str, Any], tmp_path: Path
    ) -> None:
        queries, output = tmp_path / "some.csv", tmp_path / "answers"
        queries.write_text("user\nuser 1\nnobody\n", encoding="utf-8")
        version = finished_run["pushed_version"]
        report = self.ask(
            two_tower, finished_run, "batch", "--output", str(output), "--queries", str(queries),
            "--include-seen", "--version", str(version), "-k", "20",
        )  # fmt: skip
        assert report["num_rows"] == 40
        rows = pq.read_table(output).to_pylist()
        assert {row["model_version"] for row in rows} == {version}
        assert sorted({row["user"] for row in rows}) == ["nobody", "user 1"]
        known = self.ask(
            two_tower,
            finished_run,
            "recommend",
            "--query-id",
            "user 1",
            "--include-seen",
            "-k",
            "20",
        )
        items = [row["item"] for row in rows if row["user"] == "user 1"]
        assert items == [row["candidate_id"] for row in known["candidates"]]

    def test_similar_items_are_of_the_same_half(
        self, two_tower: Command, finished_run: dict[str, Any]
    ) -> None:
        answer = self.ask(
            two_tower, finished_run, "similar", "--candidate-id", "item é7", "-k", "5"
        )
        items = [int(row["candidate_id"].removeprefix("item é")) for row in answer["candidates"]]
        assert 7 not in items
        assert sum(item < 30 for item in items) >= 4

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("similar", "--candidate-id", "nothing"), "does not know the candidate 'nothing'"),
            (("recommend", "--query-id", "user 1", "-k", "21"), "k must be at most 20"),
            (("recommend", "--query-id", "user 1", "--target", "127.0.0.1:1"), "127.0.0.1:1"),
            (("explore", "--target", "127.0.0.1:1"), "127.0.0.1:1"),
            (("loadtest", "--target", "127.0.0.1:1"), "127.0.0.1:1"),
        ],
    )
    def test_what_cannot_be_answered_is_one_message(
        self,
        two_tower: Command,
        finished_run: dict[str, Any],
        arguments: tuple[str, ...],
        message: str,
    ) -> None:
        done = two_tower(*arguments, "--config", str(finished_run["config_path"]))
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr

    def test_the_command_that_shows_the_curves_of_a_run_can_be_copied(
        self, two_tower: Command, finished_run: dict[str, Any]
    ) -> None:
        words = ["show", finished_run["run_id"], "--config", str(finished_run["config_path"])]
        lines = two_tower("runs", *words).stdout.splitlines()
        (shown,) = (line for line in lines if line.startswith("curves"))
        program, option, folder = shlex.split(shown)[1:]
        assert os.access(program, os.X_OK)
        assert option == "--logdir"
        assert any(Path(folder).rglob("events.out.tfevents.*"))
