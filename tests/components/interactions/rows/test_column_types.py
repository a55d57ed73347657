from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from components.interactions.rows import column_types
from components.interactions.rows.values import text as text_of
from components.interactions.sources import block
from tests.components.interactions.rows.columns import csv_column, faults, good


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
    assert text_of(lists).array.to_pylist() == ["a b", "", "a b", "", None, "c"]


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
        for found in (text_of(array), column_types.categorical(array, None)):
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


def test_parquet_numbers_must_be_finite():
    found = column_types.number(pa.array([1.25, float("nan"), None, float("inf")]))
    assert faults(found) == {1: block.NOT_A_NUMBER, 3: block.NOT_A_NUMBER}
    assert found.array.to_pylist()[0] == 1.25
