from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from components.interactions.rows.times import time
from components.interactions.sources import block
from tests.components.interactions.rows.columns import csv_column, faults, good


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
    found = time(csv_column(value), unit)
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
    found = time(csv_column(fine, value, fine), unit)
    assert faults(found) == {1: reason}
    assert good(found) == [86_400_000_000] * 2


def test_parquet_numbers_can_be_times():
    found = time(pa.array([1.25, float("nan"), None]), "s")
    assert faults(found) == {1: block.NOT_A_TIME, 2: block.MISSING}
    assert found.array.to_pylist()[0] == 1_250_000
    assert time(pa.array([5, 6]), "ms").array.to_pylist() == [5000, 6000]


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
    found = time(numbers, unit)
    assert faults(found) == dict.fromkeys(range(len(numbers)), block.TIME_OUT_OF_RANGE)
    fine = time(pa.array([7, None], pa.uint64()), "s")
    assert (faults(fine), good(fine)) == ({1: block.MISSING}, [7_000_000])


def test_arrow_times_keep_their_unit():
    moment = datetime(1970, 1, 1, 0, 0, 1, 500_000)
    for kind in (pa.timestamp("us"), pa.timestamp("ms"), pa.timestamp("ns")):
        assert time(pa.array([moment], kind), "s").array.to_pylist() == [1_500_000]
    aware = pa.array([moment.replace(tzinfo=timezone.utc)], pa.timestamp("us", "Europe/Paris"))
    assert time(aware, "s").array.to_pylist() == [1_500_000]
    day = pa.array([date(1970, 1, 2), None])
    assert time(day, "s").array.to_pylist()[0] == 86_400_000_000
    assert faults(time(day, "s")) == {1: block.MISSING}
