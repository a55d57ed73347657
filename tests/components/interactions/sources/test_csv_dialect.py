"""Every dialect in which a table is written is read as the same values by `init` and ingestion."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.interactions.sources.block import MIXED_QUOTES
from components.interactions.sources.files import inspect_files, read_blocks
from components.interactions.sources.sample import read_sample

VALUE = st.text(alphabet='ab\\\\",;\t#\n é', min_size=1, max_size=6)
ROWS = st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=1, max_size=12)
HEADER = ("q", "c", "title")


def read(path: Path, block_bytes: int = 100) -> tuple[list[tuple[str, ...]], dict[int, str]]:
    """Return the values of the good rows, and the reasons of the bad rows by line."""
    (file,) = inspect_files("interactions", str(path), [(str(path), 1, None)], "auto", None)
    rows, bad = [], {}
    for block in read_blocks(file, HEADER, block_bytes):
        columns = [[value.decode() for value in block.columns[n].to_pylist()] for n in HEADER]
        rows += list(zip(*columns, strict=True))
        bad.update({row.line: row.reason for row in block.malformed})
    return rows, bad


def escaped(rows: list[tuple[str, ...]], delimiter: str) -> str:
    """Write rows as Spark does: it quotes only values with special characters."""
    special = {delimiter, '"', "\n", "#"}
    return "".join(
        delimiter.join(
            '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
            if special & {*value}
            else value
            for value in row
        )
        + "\n"
        for row in rows
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=ROWS,
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]),
    preamble=st.sampled_from(["", "\n", "# by a, b; c\n\n", "sep={}\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_any_dialect_is_read(
    tmp_path: Path, rows: list[tuple[str, ...]], delimiter: str, encoding: str, preamble: str,
    quoting: int, line_end: str,
) -> None:  # fmt: skip
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    writer.writerows([HEADER, *rows])
    path = tmp_path / "rows.csv"
    path.write_bytes((preamble.format(delimiter) + text.getvalue()).encode(encoding))
    assert read(path) == (rows, {})
    assert read_sample(str(path), max_rows=100).table.rows() == rows


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, delimiter=st.sampled_from(",;\t|"), block_bytes=st.integers(20, 200))
def test_consistently_escaped_quotes_are_read(
    tmp_path: Path, rows: list[tuple[str, ...]], delimiter: str, block_bytes: int
) -> None:
    path = tmp_path / "rows.csv"
    # The first row decides the dialect.
    rows = [("u", "a", 'the "best" thing'), *rows]
    path.write_text(escaped([HEADER, *rows], delimiter), encoding="utf-8")
    assert read(path, block_bytes) == (rows, {})


@pytest.mark.parametrize(
    ("text", "expected", "bad_lines"),
    [
        # Backslashes are ordinary characters if the quotes are doubled.
        ('u,a,"C:\\"\nu,b,"{""x"": ""\\"""",""}"\n', ["C:\\", '{"x": "\\"","}'], []),
        ('u,a,"5"" disc"\nu,b,"the \\"best\\" disc"\nu,c,x\n', ['5" disc', "x"], [3]),
        ('u,a,"a ""b"""\nu,b,"5\\""\nu,c,"6\\""\nu,d,x\n', ['a "b"', "x"], [3]),
        ('u,a,C:\\new\nu,b,5" disc\n', ["C:\\new", '5" disc'], []),
    ],
)
def test_quotes_that_do_not_fit_are_bad_rows(
    tmp_path: Path, text: str, expected: list[str], bad_lines: list[int]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("q,c,title\n" + text)
    rows, bad = read(path, 1000)
    assert [row[2] for row in rows] == expected
    assert bad == dict.fromkeys(bad_lines, MIXED_QUOTES)
