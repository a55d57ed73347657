from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from components.interactions.rows import column_types
from components.interactions.rows.column_types import Values
from components.interactions.sources import block


def csv_column(*values: bytes) -> Any:
    return pa.array(values, pa.binary())


def faults(found: Values) -> dict[int, str]:
    """The first reason by row."""
    first: dict[int, str] = {}
    for reason, mask in found.faults:
        for row, bad in enumerate(mask):
            if bad:
                first.setdefault(row, reason)
    return first


def good(found: Values) -> list[Any]:
    bad = faults(found)
    return [value for row, value in enumerate(found.array.to_pylist()) if row not in bad]


def test_ids_stay_as_they_are_written():
    found = column_types.identifier(csv_column(b"007", b" 7", "ü→漢".encode(), b"1.0"))
    assert found.array.to_pylist() == ["007", " 7", "ü→漢", "1.0"]
    assert faults(found) == {}


def test_empty_and_broken_ids_are_faults():
    found = column_types.identifier(
        csv_column(b"a", b"", b"\xff\xfe", b"b\nc", b"d\re", b"f\x1fg", b"h i")
    )
    control = dict.fromkeys((3, 4, 5), block.CONTROL_CHARACTER)
    assert faults(found) == {1: block.MISSING, 2: block.NOT_UTF8, **control}
    assert good(found) == ["a", "h i"]
    for values in ([None, 1], [None, "a"]):
        assert faults(column_types.identifier(pa.array(values))) == {0: block.MISSING}


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (pa.array([7, -1], pa.int32()), ["7", "-1"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array(["a"], pa.large_string()), ["a"]),
    ],
)
def test_parquet_ids_become_text(array: Any, text: list[str]):
    assert column_types.identifier(array).array.to_pylist() == text


STRINGS = pa.list_(pa.string())


def test_lists_are_joined_for_the_separator_without_their_nulls():
    lists = pa.array([["a", "b"], [], ["a", None, "b"], [None], None, ["c"]], STRINGS)
    found = column_types.categorical(lists, "|")
    assert faults(found) == {}
    assert found.array.to_pylist() == ["a|b", "", "a|b", "", None, "c"]
    # A slice keeps the values before it in memory.
    assert column_types.categorical(lists[2:], "|").array.to_pylist() == ["a|b", "", None, "c"]
    assert column_types.text(lists).array.to_pylist() == ["a b", "", "a b", "", None, "c"]


def test_several_values_are_a_fault_if_one_is_expected():
    lists = pa.array([["a", "b"], ["New York"], [None, "c"], [], None], STRINGS)
    found = column_types.categorical(lists, None)
    assert faults(found) == {0: block.SEVERAL}
    assert found.array.to_pylist()[1:] == ["New York", "c", None, None]


def test_a_list_value_that_contains_the_separator_is_a_fault():
    lists = pa.array([["rock|roll", "b"], ["a|b"], ["a"], ["a b", "c"]], pa.list_(pa.binary()))
    found = column_types.categorical(lists, "|")
    assert faults(found) == {0: block.HOLDS_SEPARATOR, 1: block.HOLDS_SEPARATOR}
    assert good(found) == ["a", "a b|c"]
    # In TFRecord one value may well be many in one text.
    plain = column_types.categorical(lists, "|", unwraps_lists=True)
    assert faults(plain) == {0: block.HOLDS_SEPARATOR}


def test_equal_decimals_are_one_text_in_every_scale():
    values = [Decimal(text) for text in ("1.5", "0", "-20", "0.000000001", "100.25")]
    expected = ["1.5", "0", "-20", "0.000000001", "100.25"]
    for kind in (pa.decimal128(38, 9), pa.decimal256(60, 20)):
        array = pa.array([*values, None], kind)
        for found in (column_types.text(array), column_types.categorical(array, None)):
            assert found.array.to_pylist() == [*expected, None]
    lists = pa.array([values[:2]], pa.list_(pa.decimal128(38, 9)))
    assert column_types.categorical(lists, "|").array.to_pylist() == ["1.5|0"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (
            csv_column(b"1", b"-2.5", b"1e3", b".5", b"+4", b" 3 ", b"", b"  "),
            [1, -2.5, 1000, 0.5, 4, 3, None, None],
        ),
        (pa.array([True, False]), [1, 0]),
    ],
    ids=["CSV", "Parquet"],
)
def test_numbers_are_read_and_empty_is_missing(column: Any, expected: list[Any]) -> None:
    found = column_types.number(column)
    assert found.array.to_pylist() == expected
    assert faults(found) == {}
    missing = {row: block.MISSING for row, value in enumerate(expected) if value is None}
    assert faults(column_types.number(column, required=True)) == missing


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        *((text, block.NOT_A_NUMBER) for text in (b"x", b"1,5", b"nan", b"-inf", b"1e999", b"0x1")),
        *((text, block.TOO_LARGE) for text in (b"3.4028235e38", b"-9.96921e36", b"1e39", b"2e19")),
    ],
)
def test_a_number_without_a_square_in_float32_is_a_fault(value: bytes, reason: str):
    assert faults(column_types.number(csv_column(b"-1.7e19", value, b""))) == {1: reason}


@pytest.mark.parametrize(
    ("number_format", "values", "expected", "bad"),
    [
        ("1234,5", [b"3,75", b"", b"1.050"], [3.75, None], [2]),
        ("1.234,5 EUR", [b"1.050,5EUR", b"-2 EUR", b"7"], [1050.5, -2], [2]),
        ("$1,234.5", [b"-$1,050", b"$10,50", b"$0,050", b"$1e3"], [-1050, 1000], [1, 2]),
    ],
)  # fmt: skip
def test_a_number_that_does_not_fit_the_declared_format_is_a_fault(
    number_format: str, values: list[bytes], expected: list[Any], bad: list[int]
):
    found = column_types.number(csv_column(*values), number_format)
    assert faults(found) == dict.fromkeys(bad, block.NOT_IN_FORMAT)
    assert good(found) == expected


def test_lists_that_are_text_become_lists():
    values = [b"['a', \"it's\", None, 1.5]", b"['a' 'b']", b"", b"[{'a': 1}]", b"['x|y']", b"a"]
    found = column_types.categorical(csv_column(*values), "|", list_format="python")
    unread = {3: block.NOT_A_LIST, 4: block.HOLDS_SEPARATOR, 5: block.NOT_A_LIST}
    assert faults(found) == unread
    assert good(found) == ["a|it's|1.5", "a|b", None]


@pytest.mark.parametrize(
    ("unit", "value", "micros"),
    [
        ("s", b"881250949", 881_250_949_000_000),
        ("s", b"-1", -1_000_000),
        ("s", b"1.5", 1_500_000),
        ("s", b"8.8125e8", 881_250_000_000_000),
        ("s", b" 7 ", 7_000_000),
        ("ms", b"1500", 1_500_000),
        ("us", b"17", 17),
        ("ns", b"1999", 1),
        ("ns", b"-1", -1),
        ("iso8601", b"1970-01-02", 86_400_000_000),
        ("iso8601", b"1970-01-01T00:00:01", 1_000_000),
        ("iso8601", b"1970-01-01 00:00:01.5", 1_500_000),
        ("iso8601", b"1970-01-01T00:00:00.0000019Z", 1),
        ("iso8601", b"1970-01-01T02:00:00+02:00", 0),
        ("iso8601", b"1970-01-01T00:00:00Z", 0),
        ("iso8601", b"1970-01-01T02:00+02:00[Europe/Berlin]", 0),
        ("iso8601", b"1970-01-01 00:00:00.1234567 +0000 UTC", 123_456),
        ("%Y%m%d", b"19700102", 86_400_000_000),
        ("%Y%m%d", b"19700102.0", 86_400_000_000),
        ("%m/%d/%Y %I:%M %p", "1/1/1970 12:01\u202fAM".encode(), 60_000_000),
        ("%d.%m.%Y %H:%M:%S.%f", b"02.01.1970 0:00:00", 86_400_000_000),
        ("excel", b"25569,5", 43_200_000_000),
        ("excel", b"25570.041667", 90_000_000_000),
    ],
)
def test_times_become_microseconds(unit: Any, value: bytes, micros: int):
    found = column_types.time(csv_column(value), unit)
    assert faults(found) == {}
    assert found.array.to_pylist() == [micros]


@pytest.mark.parametrize(
    ("unit", "value", "reason"),
    [
        ("s", b"", block.MISSING),
        ("s", b"yesterday", block.NOT_A_TIME),
        ("s", b"nan", block.NOT_A_TIME),
        ("s", b"inf", block.NOT_A_TIME),
        ("s", b"1e30", block.TIME_OUT_OF_RANGE),
        ("s", b"881250949000", block.TIME_OUT_OF_RANGE),
        ("s", b"99999999999999999999", block.TIME_OUT_OF_RANGE),
        ("s", b"\xff", block.NOT_UTF8),
        ("iso8601", b"", block.MISSING),
        ("iso8601", b"2020-13-01", block.NOT_A_TIME),
        ("iso8601", b"881250949", block.NOT_A_TIME),
        ("iso8601", b"2020-01-01T25:00:00", block.NOT_A_TIME),
        # The offset of Berlin depends on the date.
        ("iso8601", b"2020-01-01T00:00[Europe/Berlin]", block.NOT_A_TIME),
        ("%Y%m%d", b"2020011", block.NOT_A_TIME),
        ("%Y%m%d", b"20200230", block.NOT_A_TIME),
        ("%d.%m.%Y", b"1.2.20", block.NOT_A_TIME),
        ("%m/%d/%Y %I:%M %p", b"1/2/2020 13:00 PM", block.NOT_A_TIME),
        ("excel", b"1e12", block.TIME_OUT_OF_RANGE),
    ],
)
def test_other_times_are_faults(unit: Any, value: bytes, reason: str):
    written = {"iso8601": b"1970-01-02", "%Y%m%d": b"19700102", "%d.%m.%Y": b"2.1.1970"}
    written |= {"%m/%d/%Y %I:%M %p": b"1/2/1970 12:00 AM", "excel": b"25570"}
    fine = written.get(unit, b"86400")
    found = column_types.time(csv_column(fine, value, fine), unit)
    assert faults(found) == {1: reason}
    assert good(found) == [86_400_000_000] * 2


def test_parquet_numbers_must_be_finite_and_can_be_times():
    values = pa.array([1.25, float("nan"), None, float("inf")])
    found = column_types.number(values)
    assert faults(found) == {1: block.NOT_A_NUMBER, 3: block.NOT_A_NUMBER}
    assert found.array.to_pylist()[0] == 1.25
    times = column_types.time(values[:3], "s")
    assert faults(times) == {1: block.NOT_A_TIME, 2: block.MISSING}
    assert times.array.to_pylist()[0] == 1_250_000
    assert column_types.time(pa.array([5, 6]), "ms").array.to_pylist() == [5000, 6000]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize(
    "numbers",
    [
        pa.array([2**64 - 1, 2**63, 2**63 - 1], pa.uint64()),
        pa.array([-(2**63), 2**63 - 1], pa.int64()),
        pa.array([1e300, -1e300]),
        pa.array([Decimal(10) ** 30]),
    ],
)
def test_extreme_numbers_are_never_wrapped_to_times(numbers: Any, unit: Any):
    found = column_types.time(numbers, unit)
    assert faults(found) == dict.fromkeys(range(len(numbers)), block.TIME_OUT_OF_RANGE)
    fine = column_types.time(pa.array([7, None], pa.uint64()), "s")
    assert (faults(fine), good(fine)) == ({1: block.MISSING}, [7_000_000])


def test_arrow_times_keep_their_unit():
    moment = datetime(1970, 1, 1, 0, 0, 1, 500_000)
    for kind in (pa.timestamp("us"), pa.timestamp("ms"), pa.timestamp("ns")):
        assert column_types.time(pa.array([moment], kind), "s").array.to_pylist() == [1_500_000]
    aware = pa.array([moment.replace(tzinfo=timezone.utc)], pa.timestamp("us", "Europe/Paris"))
    assert column_types.time(aware, "s").array.to_pylist() == [1_500_000]
    day = pa.array([date(1970, 1, 2), None])
    assert column_types.time(day, "s").array.to_pylist()[0] == 86_400_000_000
    assert faults(column_types.time(day, "s")) == {1: block.MISSING}
