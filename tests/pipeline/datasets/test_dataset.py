"""Preparing a dataset as a folder of CSV files, and reading archives."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli.data import data
from pipeline.datasets import movielens
from pipeline.datasets.dataset import ArchiveMembers, Dataset, Prepared, atomic_folder
from pipeline.errors import ArchiveError, DestinationError, DownloadError
from tests.pipeline.datasets.conftest import prepare
from tests.pipeline.two_clubs import ROOT

WriteZip = Callable[[dict[str, bytes]], Path]
APP = typer.Typer()
APP.command()(data)


@pytest.fixture
def archive(write_zip: WriteZip, ml_latest_members: dict[str, bytes]) -> Path:
    return write_zip(ml_latest_members)


@pytest.fixture
def prepare_latest(archive: Path, tmp_path: Path) -> Callable[..., Prepared]:
    def prepare_(*, force: bool = False) -> Prepared:
        return prepare(Dataset.ML_LATEST, tmp_path / "data", archives=[archive], force=force)

    return prepare_


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_csv_files_and_a_manifest(
    prepare_latest: Callable[..., Prepared], tmp_path: Path, archive: Path
) -> None:
    prepared = prepare_latest()
    assert prepared.folder == tmp_path / "data" / "movielens_latest"
    assert prepared.counts == {"interactions": 2, "movies": 2, "users": 2}
    assert names(prepared.folder) == ["dataset.json", "interactions.csv", "movies.csv"]
    assert (prepared.folder / "interactions.csv").read_text() == (
        "user_id,movie_id,rating,timestamp\n1,11,3.5,964982703\n2,12,4.0,964982704\n"
    )
    assert (prepared.folder / "movies.csv").read_text("utf-8").splitlines()[:2] == [
        "movie_id,title,year,genres",
        '11,"American President, The",1995,Comedy|Drama',
    ]
    manifest = json.loads((prepared.folder / "dataset.json").read_text())
    assert (manifest["name"], manifest["source"]) == ("movielens-latest", str(archive))


def test_a_complete_folder_is_only_written_again_by_force(
    prepare_latest: Callable[..., Prepared],
) -> None:
    folder = prepare_latest().folder
    (folder / "stray").write_text("")
    assert prepare_latest().counts is None
    assert prepare_latest(force=True).counts is not None
    assert not (folder / "stray").exists()


@pytest.mark.parametrize("damage", ["movies.csv", "dataset.json"])
def test_a_folder_with_a_missing_or_truncated_file_is_written_again(
    prepare_latest: Callable[..., Prepared], damage: str
) -> None:
    folder = prepare_latest().folder
    complete = (folder / damage).read_bytes()
    (folder / damage).write_bytes(complete[:20])
    assert prepare_latest().counts is not None
    (folder / damage).unlink()
    assert prepare_latest().counts is not None
    assert (folder / damage).read_bytes() == complete


def test_a_failure_leaves_nothing(
    tmp_path: Path,
    write_zip: WriteZip,
    ml_1m_members: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise DownloadError("the network is down")

    monkeypatch.setattr(movielens, "download_100k", fail)
    with pytest.raises(DownloadError):
        prepare(Dataset.ML_100K, tmp_path / "data")
    with pytest.raises(ArchiveError, match=r"must have 1,000,209 interactions.*got 2 inter"):
        prepare(Dataset.ML_1M, tmp_path / "data", archives=[write_zip(ml_1m_members)])
    assert not (tmp_path / "data").exists()


def test_a_full_disk_leaves_nothing(
    prepare_latest: Callable[..., Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_csv", fail)
    with pytest.raises(DestinationError, match="No space left"):
        prepare_latest()
    assert names(tmp_path / "data") == []


def test_asks_for_the_one_archive_of_a_dataset_without_a_download(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="--archive FILE"):
        prepare(Dataset.ML_1M, tmp_path)
    with pytest.raises(ArchiveError, match="one --archive, got 2"):
        prepare(Dataset.ML_1M, tmp_path, archives=[tmp_path, tmp_path])


def test_the_command_prepares_once(archive: Path, tmp_path: Path) -> None:
    arguments = ["movielens-latest", "--archive", str(archive), "--data-dir", str(tmp_path / "d")]
    first = CliRunner().invoke(APP, arguments)
    assert first.exit_code == 0, first.output
    assert "2 interactions, 2 movies, 2 users" in first.output
    assert "already" in CliRunner().invoke(APP, arguments).output


def test_the_command_shows_an_error_as_one_message(tmp_path: Path) -> None:
    arguments = ["movielens-1m", "--archive", "[no].zip", "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(APP, arguments)
    assert result.exit_code == 1
    assert "error: [no].zip must be a zip archive" in result.output
    assert "Traceback" not in result.output


def test_an_atomic_folder_replaces_the_old_one_or_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "old.csv").write_text("0")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "set") as partial:
        (partial / "new.csv").write_text(str(1 / 0))
    assert (names(tmp_path), names(tmp_path / "set")) == (["set"], ["old.csv"])
    with atomic_folder(tmp_path / "set") as partial:
        (partial / "new.csv").write_text("1")
    assert (names(tmp_path), names(tmp_path / "set")) == (["set"], ["new.csv"])
    with (
        pytest.raises(DestinationError, match="--data-dir"),
        atomic_folder(tmp_path / "set" / "new.csv" / "below"),
    ):
        pass


def test_a_killed_process_leaves_no_folder_and_a_running_one_is_not_disturbed(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from pipeline.datasets.dataset import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as partial:\n"
        "    (partial / 'half.csv').write_text('1')\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "set")], cwd=ROOT)
    try:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".*/half.csv")) and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(DestinationError, match="another process"):  # noqa: SIM117
            with atomic_folder(tmp_path / "set"):
                pass
        assert list(tmp_path.glob(".*/half.csv"))
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "set").exists()
    with atomic_folder(tmp_path / "set"):
        pass
    assert names(tmp_path) == ["set"]


def test_finds_a_member_with_and_without_the_archives_folder(
    write_zip: WriteZip, tmp_path: Path
) -> None:
    unpacked = tmp_path / "ml-1m"
    unpacked.mkdir()
    (unpacked / "ratings.dat").write_bytes(b"1")
    zipped = write_zip({"old_ratings.dat": b"0", "ml-1m/ratings.dat": b"1"})
    for source in (zipped, unpacked, tmp_path):
        assert ArchiveMembers(source, "x").read("ratings.dat") == b"1"


def test_names_the_missing_member_and_what_is_there(write_zip: WriteZip) -> None:
    members = ArchiveMembers(write_zip({"readme.txt": b""}), "given.zip")
    with pytest.raises(ArchiveError, match=r"given\.zip must contain `ratings\.dat`.*readme\.txt"):
        members.read("ratings.dat")


def test_refuses_what_is_not_a_complete_archive(write_zip: WriteZip, tmp_path: Path) -> None:
    path = write_zip({"a": b"hello" * 200})
    complete = path.read_bytes()
    for content in (b"", b"<html>Not found</html>", complete[:500]):
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match="complete zip archive"):
            ArchiveMembers(path, "x.zip")
    with pytest.raises(ArchiveError, match="does not exist"):
        ArchiveMembers(tmp_path / "none.zip", "none.zip")


def test_refuses_a_member_with_a_wrong_checksum(write_zip: WriteZip) -> None:
    path = write_zip({"a": b"hello"})
    path.write_bytes(path.read_bytes().replace(b"hello", b"jello"))
    with pytest.raises(ArchiveError, match="`a` cannot be read"):
        ArchiveMembers(path, "x.zip").read("a")
