from pathlib import Path

from components.in_process.stored_size import stored_bytes


def test_stored_bytes_are_those_of_all_files_below(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"123")
    (tmp_path / "y").write_bytes(b"4567")
    assert stored_bytes(str(tmp_path)) == 7
