import csv
import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.interactions.errors import UnreadableFileError
from components.interactions.sources import files
from components.interactions.sources.csv_dialect import csv_records
from components.interactions.sources.files import SourceFile, read_blocks

FIELD = st.text(alphabet='ab",\n é', max_size=6)


def rows_of(path: Path, block_bytes: int, columns: tuple[str, ...] = ("a", "b")) -> Any:
    """Well-formed rows by line, and lines of the malformed ones."""
    file_format = "parquet" if path.suffix == ".parquet" else "csv"
    file = SourceFile("interactions", 0, str(path), path.name, 1, file_format, columns)
    found: dict[int, tuple[Any, ...]] = {}
    malformed: list[int] = []
    for block in read_blocks(file, list(columns), block_bytes):
        lists = [block.columns[name].to_pylist() for name in columns]
        found.update(zip(block.lines.tolist(), zip(*lists, strict=True), strict=True))
        malformed += [row.line for row in block.malformed]
    return found, malformed


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(FIELD, min_size=2, max_size=3), min_size=1, max_size=12),
    block_bytes=st.integers(30, 120),
)
def test_blocks_of_any_size_hold_all_rows(tmp_path: Path, rows: list[list[str]], block_bytes: int):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["a", "b"], *rows])
    path = tmp_path / "rows.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    found, malformed = rows_of(path, block_bytes)
    # Each row begins after the header and the lines of earlier rows.
    heights = [1 + sum(field.count("\n") for field in row) for row in rows]
    lines = np.cumsum([2, *heights])
    assert malformed == [line for line, row in zip(lines, rows, strict=False) if len(row) != 2]
    assert found == {
        line: tuple(field.encode() for field in row)
        for line, row in zip(lines, rows, strict=False)
        if len(row) == 2
    }


@pytest.mark.parametrize("block_bytes", [8, 1000])
def test_quote_in_an_unquoted_value_is_a_character(tmp_path: Path, block_bytes: int):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'a,b\n1,5" disc\n3,"x\n4,5"\n6,7\n' + b"1,2\n" * 20)
    found, _ = rows_of(path, block_bytes)
    assert found[2] == (b"1", b'5" disc')
    assert found[3] == (b"3", b"x\n4,5")
    assert found[5] == (b"6", b"7")
    assert len(found) == 23


@pytest.mark.parametrize("block_bytes", [16, 10_000])
@pytest.mark.parametrize("tail", [b"", b"4,5\n" * 30])
def test_unclosed_quote_is_an_error_with_its_line(tmp_path: Path, block_bytes: int, tail: bytes):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'a,b\n1,2\n3,"x\n' + tail)
    with pytest.raises(UnreadableFileError, match="after line 2: a quote is never closed"):
        rows_of(path, block_bytes)


def test_unclosed_quote_in_a_column_that_is_not_read_is_an_error_too(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'a,b,note\n1,2,fine\n3,4,"oops\n5,6,x\n7,8,x\n')
    file = SourceFile("interactions", 0, str(path), "rows.csv", 1, "csv", ("a", "b", "note"))
    with pytest.raises(UnreadableFileError, match="a quote is never closed"):
        list(read_blocks(file, ["a", "b"], 1000))


@pytest.mark.parametrize("gap", [b"y", b"\0"])
def test_a_stretch_without_a_line_end_is_an_error(tmp_path: Path, gap: bytes):
    path = tmp_path / "rows.csv"
    rows = b"1,2\n" * 100
    path.write_bytes(b"a,b\n" + rows + gap * 1000 + b",2\n" + rows)
    with pytest.raises(
        UnreadableFileError, match=r"rows\.csv cannot be read as CSV after line 101: no row ends"
    ):
        rows_of(path, 64)


def test_reads_gzip_byte_order_mark_and_windows_line_ends(tmp_path: Path):
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,4"))
    assert rows_of(path, 1000) == ({2: (b"1", b"2"), 4: (b"3", b"4")}, [])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UnreadableFileError, match="ended before"):
        rows_of(path, 1000)


def test_malformed_row_need_not_be_utf8(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes("a,b\né,2\n".encode() + b"\xff,3,4\n5,\xe9\n")
    found, malformed = rows_of(path, 1000)
    assert found == {2: ("é".encode(), b"2"), 4: (b"5", b"\xe9")}
    assert malformed == [3]


@pytest.mark.parametrize("block_bytes", [1, 100, 10**6])
def test_parquet_rows_are_numbered_over_row_groups(tmp_path: Path, block_bytes: int):
    path = tmp_path / "rows.parquet"
    table = pa.table({"b": list(range(50)), "a": [str(i) for i in range(50)]})
    pq.write_table(table, path, row_group_size=7)
    found, _ = rows_of(path, block_bytes)
    assert found == {i + 1: (str(i), i) for i in range(50)}


def test_a_row_group_is_not_in_memory_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "rows.parquet"
    numbers = np.random.default_rng(0).integers(0, 1 << 62, 1_000_000)
    pq.write_table(pa.table({"a": numbers, "b": numbers}), path, use_dictionary=False)
    reads: list[int] = []

    class Recorded(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            content = super().read(size)
            reads.append(len(content))
            return content

    monkeypatch.setattr(files, "open_input", Recorded)
    found = rows_of(path, 1 << 20)[0]
    assert len(found) == 1_000_000
    assert max(reads) <= 2 << 20  # of columns of 8 MB


def test_records_start_after_quoted_newlines_and_blank_lines():
    content = b'a,b\r\n1,2\r\n\r\n"x\r\ny\r\n",3\r\n\r\n\r\n4,5\r\n'
    records = list(csv_records(io.BytesIO(content), ","))
    assert [line for line, _ in records] == [1, 2, 4, 9]
    # A byte order mark is not part of the header.
    assert next(csv_records(io.BytesIO(b"\xef\xbb\xbfa;b\n1;2\n"), ";")) == (1, ["a", "b"])


def test_broken_utf8_and_nul_do_not_change_the_lines(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a\n\xff\n\0\n\n3\n")
    assert list(rows_of(path, 1000, ("a",))[0]) == [2, 3, 5]
