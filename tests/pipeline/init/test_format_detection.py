"""Formats that `init` detects must be read by ingestion with the same values."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.interactions.rows import column_types
from components.interactions.rows.times import time
from models.features.spec import ColumnsConfig
from pipeline.errors import InitError
from pipeline.init.column_profile import likely_time_column, profile
from pipeline.init.feature_kinds import decide_kind
from pipeline.init.format_detection import find_lists, find_numbers, find_times
from pipeline.init.written_config import write_config
from pipeline.source_lookup import describe_candidates

EPOCH = datetime(1970, 1, 1)
# Each pattern with the smallest step of time that it can show.
TIME_PATTERNS = {
    "%Y-%m-%dT%H:%M:%SZ": 1, "%Y-%m-%d %H:%M:%S UTC": 1, "%Y-%m-%d %H:%M:%S.%f UTC": 1e-6,
    "%Y-%m-%d %H:%M:%S +00:00": 1, "%Y-%m-%d %H:%M:%S +0000": 1, "%Y-%m-%dT%H:%MZ[UTC]": 60,
    "%Y-%m-%dT%H:%M:%S.%f+00:00[Africa/Abidjan]": 1e-6, "%Y-%m-%d %H:%M:%S,%f": 1e-6,
    "%Y%m%dT%H%M%SZ": 1, "%Y%m%d": 86_400, "%Y%m%d%H%M": 60, "%Y%m%d%H%M%S": 1,
    "%Y/%m/%d %H:%M": 60, "%d.%m.%Y %H:%M:%S": 1, "%m/%d/%Y %I:%M %p": 60,
    "%d/%m/%Y %I:%M:%S %p": 1, "%d-%b-%Y": 86_400, "%b %d, %Y %I:%M:%S %p": 1,
    "%d/%b/%Y:%H:%M:%S +0000": 1, "%a %b %d %H:%M:%S UTC %Y": 1, "excel": 1,
    "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-6,
}  # fmt: skip
PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def written(moment: datetime, pattern: str) -> str:
    """Write a moment; `%d` and `%m` are sometimes without zeros, as in exports of spreadsheets."""
    if pattern in PER_S:
        return str((moment - EPOCH) // timedelta(microseconds=1) * PER_S[pattern] // 10**6)
    if pattern == "excel":
        return f"{(moment - datetime(1899, 12, 30)) / timedelta(days=1):.6f}"
    if "/%Y" in pattern and "%b" not in pattern:
        pattern = pattern.replace("%d", str(moment.day)).replace("%m", str(moment.month))
    return moment.strftime(pattern)


@settings(deadline=None, max_examples=200)
@given(
    moments=st.lists(
        st.datetimes(datetime(1991, 1, 1), datetime(2090, 1, 1)), min_size=1, max_size=5
    ),
    pattern=st.sampled_from(sorted(TIME_PATTERNS)),
)
def test_detected_times_are_the_times_that_were_written(
    moments: list[datetime], pattern: str
) -> None:
    # A day after the twelfth and one of another month tell the order of day and month.
    step = timedelta(seconds=TIME_PATTERNS[pattern])
    moments = [m - (m - EPOCH) % step for m in [*moments, datetime(2024, 5, 31, 10)]]
    if step == timedelta(days=1) or pattern == "excel":
        moments = [m - (m - EPOCH) % step for m in moments]
    values = [written(moment, pattern) for moment in moments]
    found = find_times(pl.Series("t", values))
    times = time(pl.Series(values).to_arrow().cast("string"), found.unit)
    assert not any(mask.any() for _, mask in times.faults)
    expected = [(moment - EPOCH) // timedelta(microseconds=1) for moment in moments]
    assert times.array.to_pylist() == expected
    assert (found.times_us.min(), found.times_us.max()) == (min(expected), max(expected))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["5/1/2024 3:07 PM", "6/2/2024 4:00 AM"], "day and month.*--timestamp-unit"),
        (["13/1/24", "14/1/24"], "a year of four digits; got '13/1/24'"),
        (["2024-05-01 07:00:00 CEST"], "CEST"),
        (["5/13/2024", "5/14/2024", "13/5/2024"], "must hold.*'5/13/2024', '13/5/2024'"),
    ],
)
def test_times_that_can_be_misread_are_refused(values: list[str], message: str) -> None:
    with pytest.raises(InitError, match=message):
        find_times(pl.Series("t", values))


def test_a_given_unit_decides_between_day_and_month() -> None:
    column = pl.Series("t", ["5/1/2024", "6/1/2024"])
    found = find_times(column, "%d/%m/%Y")
    assert found.range == "2024-01-05T00:00:00 to 2024-01-06T00:00:00 UTC"
    for unit in ("days", "%d.%m.%Y"):
        with pytest.raises(InitError, match=unit):
            find_times(column, unit)


@settings(deadline=None, max_examples=200)
@given(
    numbers=st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=5),
    unit=st.sampled_from(["{}", "{} €", "€{}", "{}%", "$ {}", "{} USD", "US${}"]),
    separators=st.sampled_from(["_.", "_,", ",.", ".,", " ,", "\u202f,", "'."]),
)
def test_detected_numbers_are_the_numbers_that_were_written(
    numbers: list[int], unit: str, separators: tuple[str, str]
) -> None:
    # Hundredths; the last one shows both separators.
    numbers = [*numbers, 123_456_789]
    shown = (
        f"{number / 100:,.2f}".translate(str.maketrans(",.", separators)) for number in numbers
    )
    words = [unit.format(number.replace("_", "")) for number in shown]
    found = find_numbers(pl.Series(words))
    assert found is not None
    assert not found.problem
    read = column_types.number(pl.Series(words).to_arrow().cast("string"), found.format)
    assert not any(mask.any() for _, mask in read.faults)
    assert read.array.to_pylist() == pytest.approx([number / 100 for number in numbers], rel=1e-6)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (["1,050", "999"], "'1,050' can be 1.05 or 1050"),
        (["1.050", "999"], "'1.050' can be 1.05 or 1050"),
        (["$1", "2 €"], "different units"),
        (["12%", "0.5"], "different units"),
    ],
)
def test_ambiguous_numbers_have_a_problem(values: list[str], problem: str) -> None:
    found = find_numbers(pl.Series(values))
    assert found is not None
    assert problem in found.problem


@pytest.mark.parametrize(
    "write", ["(1,20{}.50)", "1,23,10{}", "Rs. 1,50{}", "\u22121{}.5", "1{}.5-"]
)
def test_numbers_in_no_readable_format_do_not_become_categories(write: str) -> None:
    values = pl.Series([write.format(row % 4) for row in range(60)])
    feature, reason = decide_kind(profile(values))
    assert feature is None
    assert "numbers in no format" in reason


@settings(deadline=None, max_examples=200)
@given(
    lists=st.lists(
        st.lists(st.text(st.characters(blacklist_categories=["Cs"]))), min_size=1, max_size=5
    ),
    write=st.sampled_from([repr, json.dumps]),
)
def test_detected_lists_are_the_lists_that_were_written(
    lists: list[list[str]], write: Callable[[list[str]], str]
) -> None:
    found = find_lists(pl.Series([write(items) for items in lists]))
    assert found is not None
    assert not found.problem
    assert found.values.to_list() == [item for items in lists for item in items]


@pytest.mark.parametrize(
    "values", [["[{'id': 1}]"], ["{rock,live}"], ["['rock'", "['a']"], ["['a']"] * 9 + ["none"]]
)
def test_other_lists_have_a_problem(values: list[str]) -> None:
    found = find_lists(pl.Series(values))
    assert found is None or found.problem


def test_drafted_formats_reach_the_features(tmp_path: Path) -> None:
    events, items = tmp_path / "events.csv", tmp_path / "items.csv"
    events.write_text(
        "user;item;time;stars\n"
        + "".join(f"u{i % 4};i{i % 6};{i + 1}.05.2024 07:00;{i % 5},5\n" for i in range(24))
    )
    items.write_text(
        "item;price;share;tags;views\n"
        + "".join(f"i{i};1.{i}50,25 €;{i}%;['a', \"it's\"];{i + 1},050\n" for i in range(6))
    )
    columns = ColumnsConfig(query_id="user", candidate_id="item", timestamp="time", rating="stars")
    files = {"events": str(events), "candidates": str(items)}
    written = write_config(files, columns, tmp_path / "shop.yaml")
    assert not written.observed.bad_rows
    assert written.config.data.timestamp_unit == "%d.%m.%Y %H:%M"
    assert written.observed.features["rating"].maximum == 4.5
    assert describe_candidates(written.config, ["i3"]) == {
        "i3": {"price": "1350.25", "share": "3", "tags": "a|it's"}
    }
    text = (tmp_path / "shop.yaml").read_text()
    assert "# left out: views, '1,050' can be 1.05 or 1050" in text
    assert "2024-05-01T07:00:00 to 2024-05-24T07:00:00 UTC" in text


def test_times_may_be_missing_in_many_rows() -> None:
    found = find_times(pl.Series("t", ["2024-05-01", "NaT", "NULL", "2024-05-02"]))
    assert found.unit == "iso8601"


def test_a_list_is_not_the_time_of_an_event() -> None:
    table = pl.DataFrame({"time": [[1_714_521_600]], "ts": ["2024-05-01"]})
    assert likely_time_column(table) == "ts"
