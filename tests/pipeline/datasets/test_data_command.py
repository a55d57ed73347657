from collections.abc import Callable
from pathlib import Path

import typer
from typer.testing import CliRunner

from pipeline.cli.data import data, default_data_dir

APP = typer.Typer()
APP.command()(data)


def test_prepares_and_then_says_that_it_is_there(
    tmp_path: Path,
    write_zip: Callable[[dict[str, bytes]], Path],
    ml_latest_members: dict[str, bytes],
) -> None:
    archive = str(write_zip(ml_latest_members))
    arguments = ["movielens-latest", "--archive", archive, "--data-dir", str(tmp_path / "data")]
    first = CliRunner().invoke(APP, arguments)
    assert first.exit_code == 0, first.output
    assert "2 interactions, 2 movies, 2 users" in first.output
    assert "already there" in CliRunner().invoke(APP, arguments).output


def test_an_error_is_one_message_and_status_1(tmp_path: Path) -> None:
    arguments = ["movielens-1m", "--archive", "[no].zip", "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(APP, arguments)
    assert result.exit_code == 1
    assert "error: [no].zip must be a zip archive" in result.output
    assert "Traceback" not in result.output


def test_an_unknown_name_lists_the_known_ones() -> None:
    result = CliRunner().invoke(APP, ["movielens-2m"])
    assert result.exit_code == 2
    assert "movielens-100k" in result.output


def test_the_default_folder_is_in_the_project() -> None:
    assert default_data_dir() == Path(__file__).resolve().parents[3] / "data"
