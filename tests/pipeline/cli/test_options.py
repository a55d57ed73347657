import json
import logging
import math
from pathlib import Path

import pytest
import typer

from pipeline.cli.options import Project, parse_filters, span_override, split_ids
from pipeline.cli.output import log_to, new_table, print_json, print_table
from tests.pipeline.two_clubs import write_two_clubs


@pytest.mark.parametrize(
    ("texts", "ids"),
    [
        (None, []),
        (["a,b , c"], ["a", "b", "c"]),
        (["a", "b,c"], ["a", "b", "c"]),
        (['"a,b",c'], ["a,b", "c"]),
        (['" a ","say ""hi"""'], [" a ", 'say "hi"']),
        (["", ",", "a,"], ["a"]),
        (["ü→漢, é 7"], ["ü→漢", "é 7"]),
    ],
)
def test_ids_stand_between_commas_or_in_quotes(texts: list[str] | None, ids: list[str]) -> None:
    assert split_ids(texts) == ids


def test_filters_gather_the_values_of_a_feature() -> None:
    given = ["genres=Film-Noir", "genres=Sci-Fi, or so", "country==x"]
    assert parse_filters(given) == {
        "genres": ["Film-Noir", "Sci-Fi, or so"],
        "country": ["=x"],
    }


@pytest.mark.parametrize("text", ["genres", "=x", "genres=", ""])
def test_a_filter_needs_a_feature_and_a_value(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_filters([text])


def test_numbers_that_json_lacks_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.nan, "b": [1.5, -math.inf], "c": {"d": (1, "NaN")}})
    assert json.loads(capsys.readouterr().out) == {
        "a": None,
        "b": [1.5, None],
        "c": {"d": [1, "NaN"]},
    }


def test_progress_is_logged_even_if_a_library_has_configured_logging(tmp_path: Path) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level  # there are handlers, those of pytest
    for text in ("epoch 1/2", "epoch é"):
        with log_to(tmp_path / "logs" / "run.log"):
            logging.getLogger("two_tower.progress").info(text)
    assert (root.handlers, root.level) == (before, level)
    first, second = (tmp_path / "logs" / "run.log").read_text(encoding="utf-8").splitlines()
    assert first.endswith("INFO two_tower.progress: epoch 1/2")
    assert second.endswith("epoch é")


def test_ids_are_not_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table("id", "text")
    long_id = "x" * 300
    table.add_row(long_id, "word " * 100)
    print_table(table, ids=0)
    assert long_id in capsys.readouterr().out.splitlines()[1]


def test_a_span_is_read_as_it_is_written(tmp_path: Path) -> None:
    numbered = str(write_two_clubs(tmp_path / "a", events={"files": "day-{SPAN:4}.csv"}))
    for span in ("0010", "10", "newest"):
        assert Project(numbered).load(*span_override(span)).events.spans.last == span
    dated = str(write_two_clubs(tmp_path / "b", events={"files": "{YYYY}-{MM}-{DD}.csv"}))
    assert Project(dated).load(*span_override("2026-11-20")).events.spans.last == "2026-11-20"
    assert span_override(None) == []
