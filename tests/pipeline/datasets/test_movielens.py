import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.datasets import movielens
from pipeline.datasets.errors import ArchiveError, DestinationError, DownloadError
from pipeline.datasets.movielens import prepare
from pipeline.datasets.movielens_tables import MovieLensTables, check_tables
from pipeline.datasets.releases import MovieLens

WriteZip = Callable[[dict[str, bytes]], Path]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def archive(write_zip: WriteZip, ml_latest_members: dict[str, bytes]) -> Path:
    return write_zip(ml_latest_members)


def test_writes_clean_csv(data_dir: Path, archive: Path) -> None:
    prepared = prepare(MovieLens.LATEST, data_dir, archive=archive)
    assert prepared.folder == data_dir / "movielens_latest"
    assert prepared.counts == {"interactions": 2, "movies": 2, "users": 2}
    assert (prepared.folder / "interactions.csv").read_text() == (
        "user_id,movie_id,rating,timestamp\n1,11,3.5,964982703\n2,12,4.0,964982704\n"
    )
    assert (prepared.folder / "movies.csv").read_text("utf-8").splitlines()[:2] == [
        "movie_id,title,year,genres",
        '11,"American President, The",1995,Comedy|Drama',
    ]
    assert not (prepared.folder / "users.csv").exists()


def test_does_nothing_when_it_is_there(data_dir: Path, archive: Path) -> None:
    prepare(MovieLens.LATEST, data_dir, archive=archive)
    archive.unlink()
    assert prepare(MovieLens.LATEST, data_dir, archive=archive).counts is None


def test_makes_it_anew_by_force(data_dir: Path, archive: Path) -> None:
    folder = prepare(MovieLens.LATEST, data_dir, archive=archive).folder
    (folder / "stray").write_text("")
    assert prepare(MovieLens.LATEST, data_dir, archive=archive, force=True).counts is not None
    assert not (folder / "stray").exists()


@pytest.mark.parametrize("damage", ["movies.csv", "dataset.json"])
def test_makes_it_anew_when_a_file_is_gone_or_cut(
    data_dir: Path, archive: Path, damage: str
) -> None:
    folder = prepare(MovieLens.LATEST, data_dir, archive=archive).folder
    whole = (folder / damage).read_bytes()
    (folder / damage).write_bytes(whole[:20])
    assert prepare(MovieLens.LATEST, data_dir, archive=archive).counts is not None
    (folder / damage).unlink()
    assert prepare(MovieLens.LATEST, data_dir, archive=archive).counts is not None
    assert (folder / damage).read_bytes() == whole


def test_the_manifest_names_the_source(data_dir: Path, archive: Path) -> None:
    folder = prepare(MovieLens.LATEST, data_dir, archive=archive).folder
    manifest = json.loads((folder / "dataset.json").read_text())
    assert manifest["name"] == "movielens-latest"
    assert manifest["source"] == str(archive)


def test_refuses_wrong_counts_and_leaves_nothing(
    data_dir: Path, write_zip: WriteZip, ml_1m_members: dict[str, bytes]
) -> None:
    with pytest.raises(ArchiveError, match=r"must hold 1,000,209 interactions.*got 2 interactions"):
        prepare(MovieLens.ML_1M, data_dir, archive=write_zip(ml_1m_members))
    assert list(data_dir.iterdir()) == []


def test_a_broken_download_leaves_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> MovieLensTables:
        raise DownloadError("the network is down")

    monkeypatch.setattr(movielens, "download", fail)
    with pytest.raises(DownloadError):
        prepare(MovieLens.ML_100K, data_dir)
    assert list(data_dir.iterdir()) == []


def test_a_full_disk_leaves_nothing(
    data_dir: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(movielens, "write_tables", fail)
    with pytest.raises(DestinationError, match="No space left"):
        prepare(MovieLens.LATEST, data_dir, archive=archive)
    assert list(data_dir.iterdir()) == []


def test_asks_for_the_archive_of_what_is_not_downloaded(data_dir: Path) -> None:
    with pytest.raises(ArchiveError, match="--archive FILE"):
        prepare(MovieLens.ML_1M, data_dir)


def tables(interactions: list[tuple[int, int]], movies: list[int]) -> MovieLensTables:
    return MovieLensTables(
        interactions=pl.DataFrame(interactions, schema=["user_id", "movie_id"], orient="row"),
        movies=pl.DataFrame({"movie_id": movies}),
        users=pl.DataFrame({"user_id": [1, 2]}),
        source="given.zip",
    )


def test_refuses_a_rating_of_an_unknown_film() -> None:
    with pytest.raises(ArchiveError, match=r"`movie_id`.*1 are not: \[9\]"):
        check_tables(tables([(1, 5), (2, 9)], [5, 6]), None)


def test_refuses_a_film_that_stands_twice() -> None:
    with pytest.raises(ArchiveError, match=r"`movie_id` must stand once.*\[5\]"):
        check_tables(tables([(1, 5)], [5, 5]), None)


def test_refuses_no_interactions() -> None:
    empty = tables([(1, 5)], [5])
    empty = MovieLensTables(empty.interactions.clear(), empty.movies, empty.users, "given.zip")
    with pytest.raises(ArchiveError, match="no interactions"):
        check_tables(empty, None)
