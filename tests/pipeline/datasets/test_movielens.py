import hashlib
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import polars.testing
import pytest

from pipeline.datasets import movielens
from pipeline.datasets.dataset import Tables
from pipeline.datasets.movielens import (
    check,
    download_100k,
    read_1m,
    read_100k,
    read_latest,
    read_wheel,
)
from pipeline.errors import ArchiveError, DownloadError
from tests.pipeline.datasets.conftest import opened, zip_of


def test_100k_turns_flags_into_genres_and_splits_the_year(
    ml_100k_members: dict[str, bytes],
) -> None:
    files = read_100k(opened(ml_100k_members)).files
    assert files["movies.csv"].columns == ["movie_id", "title", "year", "genres"]
    assert files["movies.csv"].rows() == [
        (1, "Misérables, Les", 1995, "Comedy|Drama"),
        (2, "Land Before Time", 1995, "Animation|Children's"),
        (3, "unknown", None, "unknown"),
    ]
    assert files["interactions.csv"].row(0) == (7, 1, 5, 881250949)
    assert files["users.csv"].rows() == [
        (7, 24, "M", "technician", "05201"),
        (8, 53, "F", "other", "T8H1N"),
    ]


def test_100k_is_the_same_from_the_wheel(
    wheel_members: dict[str, bytes], ml_100k_members: dict[str, bytes]
) -> None:
    wheel, archive = read_wheel(opened(wheel_members)), read_100k(opened(ml_100k_members))
    assert wheel.files.keys() == archive.files.keys()
    for name, table in wheel.files.items():
        polars.testing.assert_frame_equal(table, archive.files[name])


def test_1m_decodes_ages_and_occupations_and_splits_at_double_colons(
    ml_1m_members: dict[str, bytes],
) -> None:
    files = read_1m(opened(ml_1m_members)).files
    assert files["users.csv"].columns == ["user_id", "age", "gender", "occupation", "zip_code"]
    assert files["users.csv"].rows() == [
        (1, "Under 18", "F", "K-12 student", "48067"),
        (2, "56+", "M", "self-employed", "70072-1234"),
    ]
    assert files["movies.csv"].row(0) == (10, "Café: Crème", 1998, "Comedy|Drama")


def test_latest_has_half_stars_quoted_titles_and_no_users(
    ml_latest_members: dict[str, bytes],
) -> None:
    tables = read_latest(opened(ml_latest_members))
    assert tables.counts == {"interactions": 2, "movies": 2, "users": 2}
    assert "users.csv" not in tables.files
    interactions = tables.files["interactions.csv"]
    assert interactions.columns == ["user_id", "movie_id", "rating", "timestamp"]
    assert interactions.row(0) == (1, 11, 3.5, 964982703)
    assert tables.files["movies.csv"].rows() == [
        (11, "American President, The", 1995, "Comedy|Drama"),
        (12, '"Great" Performances (1971– )', None, ""),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ml-1m/users.dat": b"1::F::2::10::48067\n"}, "must be a code of the README"),
        ({"ml-1m/movies.dat": b"1::a::b::c\n"}, "each line must have movie_id, title, genres"),
        ({"ml-1m/ratings.dat": b"1::10::5::9\n2::11\n"}, "a number is missing in 1 lines"),
    ],
)
def test_1m_refuses_rows_that_do_not_fit(
    ml_1m_members: dict[str, bytes], changes: dict[str, bytes], message: str
) -> None:
    with pytest.raises(ArchiveError, match=message):
        read_1m(opened({**ml_1m_members, **changes}))


def test_another_release_is_refused(ml_latest_members: dict[str, bytes]) -> None:
    with pytest.raises(ArchiveError, match=r"must contain `users\.dat`"):
        read_1m(opened(ml_latest_members))
    members = {**ml_latest_members, "ml-latest-small/ratings.csv": b"a,b\n1,2\n"}
    with pytest.raises(ArchiveError, match=r"must have the columns userId.*got a, b"):
        read_latest(opened(members))


def pip_that_downloads(content: bytes | None) -> Any:
    def run(command: Sequence[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        if content is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: no such package\n")
        folder = Path(command[command.index("--dest") + 1])
        (folder / "recbole-1.2.1-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Replaces what pip and GroupLens give, and which of it has the pinned hash."""

    def replace(wheel: bytes | None, archive: bytes | None, *pinned: bytes | None) -> None:
        path = tmp_path / "ml-100k.zip"
        if archive is not None:
            path.write_bytes(archive)
        monkeypatch.setattr(movielens, "ARCHIVE_URL", path.as_uri())
        monkeypatch.setattr(movielens.subprocess, "run", pip_that_downloads(wheel))
        for name, content in (("WHEEL_SHA256", wheel), ("ARCHIVE_SHA256", archive)):
            if content is not None and content in pinned:
                monkeypatch.setattr(movielens, name, hashlib.sha256(content).hexdigest())

    return replace


def test_a_download_takes_the_wheel_first(
    sources: Callable[..., None], wheel_members: dict[str, bytes]
) -> None:
    wheel = zip_of(wheel_members)
    sources(wheel, None, wheel)
    assert "recbole" in download_100k().source


@pytest.mark.parametrize("wheel", [None, b"not the pinned wheel"])
def test_a_download_takes_the_archive_if_the_wheel_fails(
    sources: Callable[..., None],
    ml_100k_members: dict[str, bytes],
    wheel: bytes | None,
) -> None:
    archive = zip_of(ml_100k_members)
    sources(wheel, archive, archive)
    assert download_100k().source.endswith("ml-100k.zip")


def test_a_download_that_fails_names_both_sources(sources: Callable[..., None]) -> None:
    sources(None, None)
    with pytest.raises(DownloadError, match="no such package") as error:
        download_100k()
    assert "ml-100k.zip could not be read" in str(error.value)
    assert "--archive" in str(error.value)


def test_a_download_refuses_files_with_another_hash(sources: Callable[..., None]) -> None:
    sources(b"something else", b"something else, too")
    with pytest.raises(ArchiveError) as error:
        download_100k()
    assert str(error.value).count("must have the SHA-256") == 2


@pytest.mark.parametrize(
    ("interactions", "movies", "message"),
    [
        ([(1, 5), (2, 9)], [5, 6], r"`movie_id`.*1 are not: \[9\]"),
        ([(1, 5)], [5, 5], r"`movie_id` must be unique.*\[5\]"),
        ([], [5], "no interactions"),
    ],
)
def test_inconsistent_tables_are_refused(
    interactions: list[tuple[int, int]], movies: list[int], message: str
) -> None:
    schema = {"user_id": pl.Int64, "movie_id": pl.Int64}
    files = {
        "interactions.csv": pl.DataFrame(interactions, schema=schema, orient="row"),
        "movies.csv": pl.DataFrame({"movie_id": movies}),
        "users.csv": pl.DataFrame({"user_id": [1, 2]}),
    }
    with pytest.raises(ArchiveError, match=message):
        check(Tables(files, {}, "given.zip"), None)
