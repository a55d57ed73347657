"""The same behaviour on this machine and on an object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from components import files


@pytest.fixture(params=["local", "remote"])
def root(request: pytest.FixtureRequest, object_store: str, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else object_store


def test_a_file_comes_back_as_it_was_written(root: str) -> None:
    files.write_text(f"{root}/deep/er/a.gz", "é")
    assert files.read_text(f"{root}/deep/er/a.gz") == "é"
    files.write_bytes(f"{root}/deep/er/a.gz", b"\x00")
    assert files.read_bytes(f"{root}/deep/er/a.gz") == b"\x00"
    assert files.list_folder(f"{root}/deep/er") == ["a.gz"]


def test_a_write_that_fails_leaves_the_file_as_it_was(root: str) -> None:
    files.write_text(f"{root}/kept", "before")

    def fail(name: str) -> None:
        with files.open_to_write(f"{root}/{name}") as file:
            file.write(b"half")
            raise OSError("no space")

    for name in ("kept", "new"):
        with pytest.raises(OSError, match="no space"):
            fail(name)
    assert files.read_text(f"{root}/kept") == "before"
    assert files.list_folder(root) == ["kept"]


def test_folders_are_listed_and_searched(root: str) -> None:
    for name in ("a/1.txt", "a/b/2.txt", "a/b/3.csv", "c.txt"):
        files.write_text(f"{root}/{name}", name)
    assert files.list_folder(root) == ["a", "c.txt"]
    assert files.list_folder(f"{root}/none") == []
    assert files.walk(f"{root}/a/") == [f"{root}/a/1.txt", f"{root}/a/b/2.txt", f"{root}/a/b/3.csv"]
    assert files.glob(f"{root}/a/b/*.txt") == [f"{root}/a/b/2.txt"]
    assert [files.exists(f"{root}/{name}") for name in ("a", "a/b", "c.txt", "d")] == [
        True,
        True,
        True,
        False,
    ]


def test_files_and_folders_are_removed_once_and_again(root: str) -> None:
    for name in ("a/1.txt", "a/b/2.txt", "ab.txt"):
        files.write_text(f"{root}/{name}", name)
    for _ in range(2):
        files.remove(f"{root}/a")
        assert files.list_folder(root) == ["ab.txt"]
    files.remove(f"{root}/ab.txt")
    assert files.list_folder(root) == []


def test_files_are_renamed_and_copied_in_order(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("m/marker", "m/z/weights"):
        files.write_text(f"{root}/{name}", name)
    files.rename([f"{root}/m/z/weights"], [f"{root}/m/z/variables"])
    copied = []
    copy = files.copy
    monkeypatch.setattr(files, "copy", lambda *paths: copied.append(paths[1]) or copy(*paths))
    files.copy_folder(f"{root}/m", f"{root}/n", last="marker")
    assert copied == [f"{root}/n/z/variables", f"{root}/n/marker"]
    assert files.read_text(f"{root}/n/z/variables") == "m/z/weights"


def test_a_folder_appears_whole_or_not_at_all(root: str) -> None:
    for text in ("old", "new"):
        with files.open_folder_to_write(f"{root}/set") as folder:
            files.write_text(f"{folder}/{text}", text)
    assert files.list_folder(f"{root}/set") == ["new"]
    with pytest.raises(ZeroDivisionError), files.open_folder_to_write(f"{root}/set") as folder:
        files.write_text(f"{folder}/half", str(1 / 0))
    assert [path.rpartition("/")[2] for path in files.walk(root)] == ["new"]
