import hashlib
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars.testing
import pytest

from pipeline.datasets import movielens_100k
from pipeline.datasets.archive_members import ArchiveMembers
from pipeline.datasets.errors import ArchiveError, DownloadError
from pipeline.datasets.movielens_100k import COUNTS_100K, download, read_wheel
from pipeline.datasets.movielens_archives import read_100k
from pipeline.datasets.movielens_tables import check_tables

Zip = Callable[[dict[str, bytes]], bytes]


def test_the_wheel_and_the_archive_give_the_same_tables(
    wheel_members: dict[str, bytes], zip_of: Zip, ml_100k_members: dict[str, bytes]
) -> None:
    wheel = read_wheel(ArchiveMembers(zip_of(wheel_members), "wheel"))
    archive = read_100k(ArchiveMembers(zip_of(ml_100k_members), "archive"))
    polars.testing.assert_frame_equal(wheel.interactions, archive.interactions)
    polars.testing.assert_frame_equal(wheel.movies, archive.movies)
    assert wheel.users is not None
    assert archive.users is not None
    polars.testing.assert_frame_equal(wheel.users, archive.users)


def test_refuses_a_wheel_with_another_layout(wheel_members: dict[str, bytes], zip_of: Zip) -> None:
    name = next(name for name in wheel_members if name.endswith(".user"))
    members = {**wheel_members, name: b"user_id:token\tage:token\n7\t24\n"}
    with pytest.raises(ArchiveError, match=r"`ml-100k\.user` must have 5 columns"):
        read_wheel(ArchiveMembers(zip_of(members), "wheel"))


def pip_that_downloads(content: bytes | None) -> Any:
    def run(command: Sequence[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        if content is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: no such package\n")
        folder = Path(command[command.index("--dest") + 1])
        (folder / "recbole-1.2.1-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def pin(monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> None:
    monkeypatch.setattr(movielens_100k, name, hashlib.sha256(content).hexdigest())


def serve_archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ml-100k.zip"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(movielens_100k, "ARCHIVE_URL", path.as_uri())


def test_takes_the_wheel_first(
    monkeypatch: pytest.MonkeyPatch, wheel_members: dict[str, bytes], zip_of: Zip
) -> None:
    wheel = zip_of(wheel_members)
    pin(monkeypatch, "WHEEL_SHA256", wheel)
    monkeypatch.setattr(movielens_100k.subprocess, "run", pip_that_downloads(wheel))
    assert "recbole" in download().source


@pytest.mark.parametrize("wheel", [None, b"not the pinned wheel"])
def test_takes_the_archive_where_the_wheel_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    ml_100k_members: dict[str, bytes],
    zip_of: Zip,
    wheel: bytes | None,
) -> None:
    archive = zip_of(ml_100k_members)
    pin(monkeypatch, "ARCHIVE_SHA256", archive)
    serve_archive(monkeypatch, tmp_path, archive)
    monkeypatch.setattr(movielens_100k.subprocess, "run", pip_that_downloads(wheel))
    assert download().source.endswith("ml-100k.zip")


def test_names_both_sources_when_neither_can_be_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve_archive(monkeypatch, tmp_path, None)
    monkeypatch.setattr(movielens_100k.subprocess, "run", pip_that_downloads(None))
    with pytest.raises(DownloadError, match="no such package") as error:
        download()
    assert "ml-100k.zip could not be read" in str(error.value)
    assert "--archive" in str(error.value)


def test_refuses_what_is_not_the_pinned_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ml_100k_members: dict[str, bytes], zip_of: Zip
) -> None:
    serve_archive(monkeypatch, tmp_path, zip_of(ml_100k_members))
    monkeypatch.setattr(movielens_100k.subprocess, "run", pip_that_downloads(b"something else"))
    with pytest.raises(ArchiveError, match="must have the SHA-256") as error:
        download()
    assert str(error.value).count("it is not used") == 2


def test_the_real_set_is_whole() -> None:
    try:
        tables = download()
    except DownloadError as error:
        pytest.skip(f"needs a package index or GroupLens: {error}")
    check_tables(tables, COUNTS_100K)
    assert tables.movies.row(0) == (1, "Toy Story", 1995, "Animation|Children's|Comedy")
    # 267 is the one film of which GroupLens knows neither title nor year.
    assert tables.movies["year"].null_count() == 1
    assert tables.movies.row(266) == (267, "unknown", None, "unknown")
    assert tables.interactions.row(0) == (196, 242, 3, 881250949)
