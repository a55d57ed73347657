"""Bounds and output of the rows of benchmarks."""

import json

import pytest

from benchmarks._report import report, row


@pytest.mark.parametrize(
    ("value", "must", "aim", "larger_is_better", "met", "shown"),
    [
        (0.351, 0.35, 0.6, True, True, "must"),
        (0.61, 0.35, 0.6, True, True, "aim"),
        (0.3, 0.35, 0.6, True, False, "no"),
        (0.349999, 0.35, None, True, False, "no"),  # not rounded up to the bound
        (7.0, 10, 6, False, True, "must"),
        (6.0, 10, 6, False, True, "aim"),
        (11.0, 10, 6, False, False, "no"),
        (0.0, 0, None, False, True, "yes"),
        (5.0, None, None, False, None, ""),
    ],
)
def test_a_row_is_compared_with_its_bounds(
    value: float,
    must: float | None,
    aim: float | None,
    larger_is_better: bool,
    met: bool | None,
    shown: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = row("name", value, "unit", must, aim, larger_is_better=larger_is_better)
    assert found["met"] is met
    assert report({}, [found], as_json=False) == (1 if met is False else 0)
    last_cell = capsys.readouterr().out.splitlines()[-1].split("|")[-2].strip()
    assert last_cell == shown


def test_json_is_one_object_with_all_of_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert report({"load": "0.1"}, [row("name", 12345.6, "s", 5)], as_json=True) == 1
    (line,) = capsys.readouterr().out.splitlines()
    expected = {"name": "name", "value": 12345.6, "unit": "s", "must": 5, "aim": None, "met": False}
    assert json.loads(line) == {"load": "0.1", "rows": [expected]}
