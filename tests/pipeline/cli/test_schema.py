from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.schema import app

CONFIG = """\
events: { files: events.csv, query_id: user, candidate_id: item, rating: stars }
queries: { file: users.csv, features: { country: { kind: categorical } } }
split: { method: random }
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty users from DE and FR, a configuration, no schema; the working directory."""
    (tmp_path / "shop.yaml").write_text(CONFIG)
    rows = [f"u{u},i{i},{1 + i}\n" for u in range(20) for i in range(3)]
    (tmp_path / "events.csv").write_text("user,item,stars\n" + "".join(rows))
    users = [f"u{u},{['DE', 'FR'][u % 2]}\n" for u in range(20)]
    (tmp_path / "users.csv").write_text("user,country\n" + "".join(users))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments, "--config", "shop.yaml"])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_infers_and_then_finds_no_difference(shop: Path) -> None:
    status, output = _run("infer")
    assert status == 0, output
    assert "all 60 rows of interactions, all 20 rows of queries" in output
    assert 'value: "FR"' in (shop / "schema/shop/schema.pbtxt").read_text()
    status, output = _run("diff")
    assert status == 0, output
    assert "the data fits" in output


def test_shows_differences_and_ends_with_1(shop: Path) -> None:
    _run("infer")
    with (shop / "users.csv").open("a") as file:
        file.write("u20,[ES]\n")
    with (shop / "events.csv").open("a") as file:
        file.write("u20,i1,9\n")
    status, output = _run("diff")
    assert status == 1
    assert "1 new: '[ES]' 1×" in output
    assert 'string_domain { value: "[ES]" }' in output
    assert "up to 9" in output
    assert "2 differences" in output


def test_keeps_a_schema_that_is_there(shop: Path) -> None:
    file = shop / "schema/shop/schema.pbtxt"
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    status, output = _run("infer")
    assert status == 1
    assert "--force" in output
    assert file.read_text() == "mine"
    assert _run("infer", "--output", "other.pbtxt")[0] == 0
    assert (shop / "other.pbtxt").is_file()
    assert _run("infer", "--force")[0] == 0
    assert file.read_text() != "mine"


@pytest.mark.parametrize(
    ("command", "schema", "users", "message"),
    [
        ("diff", None, None, "`two-tower schema infer`"),
        ("diff", 'feature { nme: "x" }', None, "cannot be read as a schema: 1:11"),
        ("infer", None, "user,land\nu1,DE\n", "no column 'country'"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_message(
    shop: Path, command: str, schema: str | None, users: str | None, message: str
) -> None:
    if schema is not None:
        file = shop / "schema/shop/schema.pbtxt"
        file.parent.mkdir(parents=True)
        file.write_text(schema)
    if users is not None:
        (shop / "users.csv").write_text(users)
    status, output = _run(command)
    assert status == 1
    assert message in output


def test_users_without_a_row_are_said(shop: Path) -> None:
    (shop / "users.csv").write_text("user,country\nu1,DE\n")
    assert "95% of their 20 query IDs have no row in `queries.file`" in _run("infer")[1]
