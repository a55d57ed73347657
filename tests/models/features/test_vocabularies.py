from __future__ import annotations

from pathlib import Path

import pytest

from models.features.vocabularies import read_vocabulary


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
