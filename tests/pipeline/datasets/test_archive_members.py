from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.datasets.archive_members import ArchiveMembers, parse_rows
from pipeline.datasets.errors import ArchiveError

WriteZip = Callable[[dict[str, bytes]], Path]


def test_finds_a_member_with_and_without_the_archives_folder(
    write_zip: WriteZip, tmp_path: Path
) -> None:
    unpacked = tmp_path / "ml-1m"
    unpacked.mkdir()
    (unpacked / "ratings.dat").write_bytes(b"1")
    for source in (write_zip({"ml-1m/ratings.dat": b"1"}), unpacked, tmp_path):
        assert ArchiveMembers(source, "x").read("ratings.dat") == b"1"


def test_does_not_take_a_longer_name_for_the_member(write_zip: WriteZip) -> None:
    members = ArchiveMembers(write_zip({"old_ratings.dat": b"0", "a/ratings.dat": b"1"}), "x")
    assert members.read("ratings.dat") == b"1"


def test_names_the_missing_member_and_what_is_there(write_zip: WriteZip) -> None:
    members = ArchiveMembers(write_zip({"readme.txt": b""}), "given.zip")
    with pytest.raises(ArchiveError, match=r"given\.zip must hold `ratings\.dat`.*readme\.txt"):
        members.read("ratings.dat")


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>"])
def test_refuses_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="whole zip archive"):
        ArchiveMembers(path, "x.zip")


def test_refuses_a_cut_archive(write_zip: WriteZip) -> None:
    path = write_zip({"a": b"1" * 1000})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ArchiveError, match="Download it again"):
        ArchiveMembers(path, "x.zip")


def test_refuses_a_member_with_a_wrong_checksum(write_zip: WriteZip) -> None:
    path = write_zip({"a": b"hello"})
    path.write_bytes(path.read_bytes().replace(b"hello", b"jello"))
    with pytest.raises(ArchiveError, match="`a` cannot be read"):
        ArchiveMembers(path, "x.zip").read("a")


def test_says_that_the_file_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="does not exist"):
        ArchiveMembers(tmp_path / "nope.zip", "nope.zip")


def test_names_the_encoding(write_zip: WriteZip) -> None:
    members = ArchiveMembers(write_zip({"a": "é".encode("latin-1")}), "x.zip")
    with pytest.raises(ArchiveError, match="must be utf-8"):
        members.text("a", "utf-8")


SCHEMA = {"id": pl.Int64, "name": pl.String}


@pytest.mark.parametrize("separator", ["\t", "|", "::"])
def test_keeps_quotes_commas_and_leading_zeros(separator: str) -> None:
    text = f'1{separator}"a, b" \n2{separator}05201\n'
    rows = parse_rows(text, where="x", separator=separator, schema=SCHEMA)
    assert rows.rows() == [(1, '"a, b" '), (2, "05201")]


@pytest.mark.parametrize("text", ["1::a::b\n", "x::a\n", "1::a\n\n2::b\n"])
def test_refuses_rows_that_do_not_fit(text: str) -> None:
    with pytest.raises(ArchiveError, match="x must hold id, name on each line"):
        parse_rows(text, where="x", separator="::", schema=SCHEMA)


def test_refuses_a_row_that_is_too_short() -> None:
    with pytest.raises(ArchiveError, match=r"1 lines lack a number, the first is \(2, None\)"):
        parse_rows("1|5\n2\n", where="x", separator="|", schema={"id": pl.Int64, "n": pl.Int64})
