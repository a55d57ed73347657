"""MovieLens 100K: 100,000 ratings of 1,682 films by 943 people, 1997 and 1998.

References:
    F. Maxwell Harper and Joseph A. Konstan. The MovieLens Datasets: History and Context.
    ACM Transactions on Interactive Intelligent Systems 5(4), 2015.
"""

import hashlib
import http.client
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from pipeline.datasets.archive_members import ArchiveMembers, parse_rows
from pipeline.datasets.errors import ArchiveError, DatasetError, DownloadError
from pipeline.datasets.movielens_archives import RATING_COLUMNS, USER_COLUMNS_100K, read_100k
from pipeline.datasets.movielens_tables import MovieLensTables, split_title_and_year

COUNTS_100K = {"interactions": 100_000, "movies": 1_682, "users": 943}

# RecBole's wheel carries the whole set, so it comes from wherever pip is set up to look.
WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
ARCHIVE_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ARCHIVE_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"


def download() -> MovieLensTables:
    """Fetch the set: from RecBole's wheel, or else from GroupLens.

    Returns:
        The tables, the same from both sources.

    Raises:
        DownloadError: neither source could be reached.
        ArchiveError: what came is not what it must be, and the other source did not help.
    """
    try:
        return read_wheel(ArchiveMembers(_download_wheel(), f"the wheel of {WHEEL}"))
    except DatasetError as wheel_error:
        try:
            return read_100k(ArchiveMembers(_download_archive(), ARCHIVE_URL))
        except DatasetError as archive_error:
            both = (wheel_error, archive_error)
            unreachable = all(isinstance(error, DownloadError) for error in both)
            raise (DownloadError if unreachable else ArchiveError)(
                "MovieLens 100K could be had from neither of its two sources.\n"
                f"1. {wheel_error}\n2. {archive_error}\n"
                "Check the network and pip's settings, or fetch ml-100k.zip elsewhere and give "
                "it with --archive ml-100k.zip"
            ) from archive_error


def read_wheel(members: ArchiveMembers) -> MovieLensTables:
    """Read the set from RecBole's wheel.

    Args:
        members: the wheel.

    Returns:
        The tables.

    Raises:
        ArchiveError: a file is missing or is not as it must be.
    """
    movies = _atomic_file(
        members,
        "ml-100k.item",
        {"movie_id": pl.Int64, "title": pl.String, "year": pl.String, "genres": pl.String},
    )
    # Two films went wrong when RecBole took the titles apart: 267 became "unkonwn", and 1412
    # kept its year in the title and has "V" (straight to video) for a year.
    titles = split_title_and_year(movies)
    movies = movies.with_columns(
        title=titles["title"].replace("unkonwn", "unknown"),
        year=pl.col("year").cast(pl.Int64, strict=False).fill_null(titles["year"]),
        genres=pl.col("genres").str.replace_all(" ", "|", literal=True),
    )
    return MovieLensTables(
        interactions=_atomic_file(members, "ml-100k.inter", RATING_COLUMNS),
        movies=movies,
        users=_atomic_file(members, "ml-100k.user", USER_COLUMNS_100K),
        source=members.name,
    )


def _atomic_file(
    members: ArchiveMembers, member: str, schema: Mapping[str, type[pl.DataType]]
) -> pl.DataFrame:
    """Read one of RecBole's "atomic files": tab-separated, with types in its header."""
    header, _, rows = members.text(member, "utf-8").partition("\n")
    if len(header.split("\t")) != len(schema):
        raise ArchiveError(
            f"{members.name}: `{member}` must have {len(schema)} columns, got: {header[:100]}"
        )
    return parse_rows(rows, where=f"{members.name}: `{member}`", separator="\t", schema=schema)


def _download_wheel() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", folder, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise DownloadError(f"pip could not download {WHEEL}: {' '.join(last)}")
        return _checked(wheels[0].read_bytes(), f"the wheel of {WHEEL}", WHEEL_SHA256)


def _download_archive() -> bytes:
    try:
        with urllib.request.urlopen(ARCHIVE_URL, timeout=30) as response:
            content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{ARCHIVE_URL} could not be read: {error}") from error
    return _checked(content, ARCHIVE_URL, ARCHIVE_SHA256)


def _checked(content: bytes, name: str, sha256: str) -> bytes:
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise ArchiveError(f"{name} must have the SHA-256 {sha256}, got {got}: it is not used")
    return content
