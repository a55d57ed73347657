"""The sample that `init` takes: read by ingestion's readers, without declared columns."""

import bz2
import gzip
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.interactions.errors import ColumnError, NoInputError, UnreadableFileError
from components.interactions.sources.sample import Sample, count_rows, read_sample
from components.interactions.sources.tfrecord import frame
from tests.components.interactions.sources.test_tfrecord import example


def rows(sample: Sample) -> dict[str, list[Any]]:
    return sample.table.to_dict(as_series=False)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("delimiter", b"q;c\nu;a,b\nv;\n", {"q": ["u", "v"], "c": ["a,b", None]}),
        ("quotes", b'q,c\nu,"12"" disc"\nv,12" disc\n', {"q": ["u", "v"], "c": ['12" disc'] * 2}),
        ("blank first lines", b"\n\nq,c\nu,a\n", {"q": ["u"], "c": ["a"]}),
        ("carriage returns", b"q,c\ru,a\rv,b\r", {"q": ["u", "v"], "c": ["a", "b"]}),
        ("gzip by content", gzip.compress(b"q,c\nu,a\n"), {"q": ["u"], "c": ["a"]}),
        ("malformed rows", b"q,c\nu,a\nv,b,x\nw\n", {"q": ["u"], "c": ["a"]}),
        ("byte order mark, not UTF-8", b"\xef\xbb\xbfq,c\n\xff,a\n", {"q": [None], "c": ["a"]}),
        ("columns without a name", b"q,c,,\nu,a,,\n", {"q": ["u"], "c": ["a"]}),
        ("columns of one name", b"q,c,x,x\nu,a,1,2\n", {"q": ["u"], "c": ["a"]}),
        ("bzip2 by content", bz2.compress(b"q,c\nu,a\n"), {"q": ["u"], "c": ["a"]}),
        ("UTF-16", "q,c\nu,ä\n".encode("utf-16"), {"q": ["u"], "c": ["ä"]}),
        ("UTF-16 without a mark", "q,c\nu,a\n".encode("utf-16-be"), {"q": ["u"], "c": ["a"]}),
        ("Excel", b'\xef\xbb\xbf"sep=;"\r\nq;c\r\nu;a,b\r\n', {"q": ["u"], "c": ["a,b"]}),
        ("comments", b"# from x\n# a, b, c\n\n,,\nq,c\nu,#a\n", {"q": ["u"], "c": ["#a"]}),
        ("a header with #", b"#q,c\nu,a\n", {"#q": ["u"], "c": ["a"]}),
        ("a comment with a comma", b"# by a, b\nq,c\nu,a\n", {"q": ["u"], "c": ["a"]}),
        ("spaces in the header", b"q , c\nu,a\n", {"q": ["u"], "c": ["a"]}),
        ("a delimiter after each row", b"q,c\nu,a,\nv,b,\n", {"q": ["u", "v"], "c": ["a", "b"]}),
        ("a delimiter after the header", b"q,c,\nu,a\nv,b\n", {"q": ["u", "v"], "c": ["a", "b"]}),
        (
            "names with commas",
            b'q\t"a,b,c"\tc\nu\t1,2\ta\n',
            {"q": ["u"], "a,b,c": ["1,2"], "c": ["a"]},
        ),
        ("a header that is not UTF-8", b"q,\xe9\nu,a\n", {"q": ["u"], "\ufffd": ["a"]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reads_csv_files(tmp_path: Path, name: str, content: bytes, expected: dict[str, list[Any]]):
    (tmp_path / "events.csv").write_bytes(content)
    sample = read_sample(str(tmp_path / "*.csv"), max_rows=100)
    assert rows(sample) == expected
    assert sample.is_complete


def test_parquet_parts_get_one_type_and_unreadable_columns_are_named(tmp_path: Path):
    first = pa.table(
        {
            "id": pa.array([1, 2], pa.int32()),
            "price": [1, 2],
            "length": pa.array([1, 2], pa.duration("s")),
            "record": [{"a": 1}] * 2,
            "tags": [["x"], ["y", "z"]],
        }
    )
    second = first.set_column(0, "id", pa.array([3, 4], pa.int64())).set_column(
        1, "price", pa.array(["a", "b"])
    )
    pq.write_table(first, tmp_path / "1.parquet")
    pq.write_table(second, tmp_path / "2.parquet")
    sample = read_sample(str(tmp_path / "*.parquet"), max_rows=3)
    assert rows(sample) == {
        "id": [1, 2, 3],
        "price": ["1", "2", "a"],
        "tags": [["x"], ["y", "z"], ["x"]],
    }
    assert set(sample.unusable) == {"length", "record"}
    assert not sample.is_complete


@pytest.mark.parametrize(
    "other",
    [
        pa.array(["3"]).dictionary_encode(),
        pa.array([b"3"]),
        pa.array([Decimal(3)], pa.decimal256(50, 0)),
        pa.array([3.0], pa.float32()),
    ],
    ids=lambda array: str(array.type),
)
def test_parquet_types_of_any_two_files_are_combined(tmp_path: Path, other: Any):
    pq.write_table(pa.table({"x": pa.array([1], pa.int32())}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"x": other}), tmp_path / "2.parquet")
    values = read_sample(str(tmp_path / "*.parquet"), max_rows=9).table["x"]
    assert [float(value) for value in values] == [1, 3]


def test_types_without_a_common_one_become_text(tmp_path: Path):
    for name, value in (("1", Decimal("1.5")), ("2", True)):
        table = pa.table({"x": [value], "y": [[value]]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    found = read_sample(str(tmp_path / "*.parquet"), max_rows=9).table
    assert found["x"].to_list() == ["1.5", "true"]
    assert found["y"].to_list() == [["1.5"], ["true"]]


def test_numbers_and_times_in_one_column_are_text(tmp_path: Path):
    for name, value in (("1", 1_700_000_000), ("2", datetime(2024, 5, 1))):
        pq.write_table(pa.table({"time": [value]}), tmp_path / f"{name}.parquet")
    found = read_sample(str(tmp_path / "*.parquet"), max_rows=9).table["time"].to_list()
    assert found == ["1700000000", "2024-05-01 00:00:00.000000"]


def test_times_that_cannot_be_printed_are_null(tmp_path: Path):
    times = pa.array([2**60, None, 1], pa.timestamp("s"))
    days = pa.array([2**31 - 1, None, 1], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"time": times, "day": days}), tmp_path / "a.parquet")
    table = read_sample(str(tmp_path / "a.parquet"), max_rows=9).table
    assert table.cast(pl.String).null_count().row(0) == (2, 2)


def test_without_a_valid_row_the_first_invalid_one_is_shown(tmp_path: Path):
    (tmp_path / "a.csv").write_text("q,c\nu,a,1\nv,b,2\n")
    with pytest.raises(NoInputError, match=r"line 2 of a\.csv: wrong number of values: 3"):
        read_sample(str(tmp_path / "a.csv"), max_rows=10)


def test_only_the_newest_catalogue_of_a_pattern_with_dates_is_read(tmp_path: Path):
    for day in (1, 2):
        (tmp_path / f"2024-05-0{day}.csv").write_text(f"c,price\na,{day}\n")
    pattern = str(tmp_path / "{YYYY}-{MM}-{DD}.csv")
    assert read_sample(pattern, max_rows=9, newest_span=True).table["price"].to_list() == ["2"]
    assert len(read_sample(pattern, max_rows=9).table) == 2


@pytest.mark.parametrize(
    ("dates", "message"),
    [("{YYYY}-{MM}-{DD}", "2024-02-30.csv: the date in the name"), ("{YYYY}-{MM}", "{DD}")],
)
def test_dates_that_are_incomplete_or_do_not_exist_are_named(
    tmp_path: Path, dates: str, message: str
):
    (tmp_path / "2024-02-30.csv").write_text("c,price\na,1\n")
    with pytest.raises(NoInputError, match=re.escape(message)):
        read_sample(str(tmp_path / f"{dates}.csv"), max_rows=9)


def test_tfrecord_values_are_text_numbers_or_lists(tmp_path: Path):
    records = [{"q": "u", "n": 1, "tags": "x"}, {"q": "v", "n": None, "tags": ["y", "z"]}]
    (tmp_path / "part-0").write_bytes(b"".join(frame(example(row)) for row in records))
    (tmp_path / "part-1").write_bytes(frame(example({"q": "w", "n": 3, "tags": "x"})))
    found = rows(read_sample(str(tmp_path / "part-*"), max_rows=10))
    assert found == {"q": ["u", "v", "w"], "n": [1, None, 3], "tags": [["x"], ["y", "z"], ["x"]]}


def test_a_parquet_file_without_rows_is_an_ingestion_error(tmp_path: Path):
    pq.write_table(pa.table({"q": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(NoInputError, match="no row"):
        read_sample(str(tmp_path / "a.parquet"), max_rows=10)


def test_all_rows_and_distinct_values_are_counted(tmp_path: Path):
    for part in range(3):
        (tmp_path / f"{part}.csv").write_text("q,c\nu,a\nv,b\n,c\n")
    assert count_rows(str(tmp_path / "*.csv"), "q") == (9, 2)


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({}, NoInputError),
        ({"a.csv": b"q,c\n"}, NoInputError),
        ({"a.csv": b"q,c\nu,a\n", "b.jsonl": b'{"q": "u", "c": "a"}\n'}, UnreadableFileError),
        ({"a.csv": b"q,c\nu,a\n", "b.csv": b"x,c\nu,a\n"}, ColumnError),
        ({"a.csv": b'q,c\nu,"a\n'}, UnreadableFileError),
        ({"a.csv": gzip.compress(b"q,c\nu,a\n" * 50)[:-9]}, UnreadableFileError),
        ({"a.parquet": b"q,c\nu,a\n"}, UnreadableFileError),
        ({"a.xlsx": b"PK"}, UnreadableFileError),
    ],
)
def test_files_that_cannot_be_read_are_an_ingestion_error(
    tmp_path: Path, files: dict[str, bytes], error: type[Exception]
):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error):
        read_sample(str(tmp_path / "*"), max_rows=10)


def test_names_in_the_headers_of_csv_files_may_differ_in_case(tmp_path: Path):
    (tmp_path / "1.csv").write_text("user,item\nu,a\n")
    (tmp_path / "2.csv").write_text("Item, USER\nb,v\n")
    sample = read_sample(str(tmp_path / "*.csv"), max_rows=100)
    assert rows(sample) == {"user": ["u", "v"], "item": ["a", "b"]}
