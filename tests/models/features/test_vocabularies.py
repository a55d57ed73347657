from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

from models.features.vocabularies import escape_line_ends, read_vocabulary


@pytest.mark.parametrize(
    ("lines", "counted", "values"),
    [
        (b"7 a\x1fb\n1 c\n", True, [b"a\x1fb", b"c"]),
        # Line ends for Python, but not for Transform.
        ("7 x\u2028y\n3 \x85\n".encode(), True, ["x\u2028y".encode(), "\x85".encode()]),
        (b"x y\nz\n", False, [b"x y", b"z"]),
        (b"", False, []),
    ],
)
def test_a_vocabulary_is_read_as_transform_wrote_it(
    tmp_path: Path, lines: bytes, counted: bool, values: list[bytes]
):
    (tmp_path / "vocabulary").write_bytes(lines)
    assert read_vocabulary(str(tmp_path / "vocabulary"), counted=counted) == values


@given(st.binary() | st.text(alphabet="\\nr\n\r\0 é").map(str.encode))
@example(b"C:\\new\r\n")
def test_any_value_fits_into_a_line_and_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, value: bytes
):
    line = escape_line_ends(tf.constant([value])).numpy()[0]
    assert not {b"\n", b"\r"} & {line[i : i + 1] for i in range(len(line))}
    path = tmp_path_factory.getbasetemp() / "line"
    path.write_bytes(line + b"\n")
    assert read_vocabulary(str(path), counted=False) == [value]
