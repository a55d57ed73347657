"""Readers of MovieLens 100K, 1M and the "latest" family, which produce tables of the same form.

The README in each archive describes its columns and codes.

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
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from pipeline.datasets.dataset import (
    ArchiveMembers,
    Dataset,
    Tables,
    check_columns,
    read_csv,
    show_counts,
)
from pipeline.errors import ArchiveError, DatasetError, DownloadError

# RecBole's wheel contains all of MovieLens 100K, so pip can download it from any package index.
WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
ARCHIVE_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ARCHIVE_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"

# The counts of "latest" change with each release.
EXPECTED_COUNTS = {
    Dataset.ML_100K: {"interactions": 100_000, "movies": 1_682, "users": 943},
    Dataset.ML_1M: {"interactions": 1_000_209, "movies": 3_883, "users": 6_040},
}

_RATING_COLUMNS = dict.fromkeys(("user_id", "movie_id", "rating", "timestamp"), pl.Int64)
_MOVIE_COLUMNS = {"movie_id": pl.Int64, "title": pl.String, "genres": pl.String}
_USER_COLUMNS = {
    **dict.fromkeys(("user_id", "age"), pl.Int64),
    **dict.fromkeys(("gender", "occupation", "zip_code"), pl.String),
}
# From the README of ml-1m: the code of an age group is its lowest age, and 1 for "Under 18".
_AGE_GROUPS_1M = {
    1: "Under 18",
    18: "18-24",
    25: "25-34",
    35: "35-44",
    45: "45-49",
    50: "50-55",
    56: "56+",
}
# From the README of ml-1m, joined by "|" in the order of their codes, which start at 0.
_OCCUPATIONS_1M = (
    "other|academic/educator|artist|clerical/admin|college/grad student|customer service|"
    "doctor/health care|executive/managerial|farmer|homemaker|K-12 student|lawyer|programmer|"
    "retired|sales/marketing|scientist|self-employed|technician/engineer|tradesman/craftsman|"
    "unemployed|writer"
)
_NO_GENRES_LATEST = "(no genres listed)"
# Matches "Toy Story (1995)", and "… (1995) (V)" for films released on video.
_TITLE_AND_YEAR = r"^(.*?)\s*\((\d{4})\)\s*(?:\(V\))?\s*$"


def read(dataset: Dataset, archives: Sequence[Path]) -> Tables:
    """Read a MovieLens release from its archive; download MovieLens 100K if no archive is given.

    The tables are `interactions.csv` (user_id, movie_id, rating, timestamp in seconds since 1970),
    `movies.csv` (movie_id, title without the year, year or null, genres joined by "|") and, except
    for "latest", `users.csv` (user_id, age, gender, occupation, zip_code).

    Raises:
        DownloadError: No source can be reached.
        ArchiveError: The archive is missing, incomplete or the wrong one.
    """
    if len(archives) > 1:
        raise ArchiveError(f"{dataset.value} is read from one --archive, got {len(archives)}")
    if archives:
        readers = {Dataset.ML_100K: read_100k, Dataset.ML_1M: read_1m}
        reader = readers.get(dataset, read_latest)
        tables = reader(ArchiveMembers(archives[0], str(archives[0])))
    elif dataset is Dataset.ML_100K:
        tables = download_100k()
    else:
        raise ArchiveError(
            f"{dataset.value} is read from GroupLens' own archive: download it from "
            "https://grouplens.org/datasets/movielens/ and give it with --archive FILE"
        )
    check(tables, EXPECTED_COUNTS.get(dataset))
    return tables


def download_100k() -> Tables:
    """Download MovieLens 100K from RecBole's wheel or, if that fails, from GroupLens."""
    try:
        return read_wheel(ArchiveMembers(_download_wheel(), f"the wheel of {WHEEL}"))
    except DatasetError as wheel_error:
        try:
            return read_100k(ArchiveMembers(_download_archive(), ARCHIVE_URL))
        except DatasetError as archive_error:
            both = (wheel_error, archive_error)
            unreachable = all(isinstance(error, DownloadError) for error in both)
            raise (DownloadError if unreachable else ArchiveError)(
                "MovieLens 100K could not be downloaded from either of its two sources.\n"
                f"1. {wheel_error}\n2. {archive_error}\n"
                "Check the network and pip's settings, or download ml-100k.zip elsewhere and give "
                "it with --archive ml-100k.zip"
            ) from archive_error


def read_wheel(members: ArchiveMembers) -> Tables:
    """Read MovieLens 100K from RecBole's wheel into the same tables as from `ml-100k.zip`.

    The files are tab-separated. Their headers, which name columns and types, are skipped.
    """
    columns = {"movie_id": pl.Int64, **dict.fromkeys(("title", "year", "genres"), pl.String)}
    movies, interactions, users = (
        _rows(members, f"ml-100k.{name}", "\t", schema, encoding="utf-8", skip=1)
        for name, schema in (("item", columns), ("inter", _RATING_COLUMNS), ("user", _USER_COLUMNS))
    )
    # Two titles are wrong in RecBole's file: that of movie 267 is "unkonwn", and that of movie 1412
    # contains its year, while its `year` is "V" (released on video).
    titles = _split_title(movies)
    movies = movies.with_columns(
        title=titles["title"].replace("unkonwn", "unknown"),
        year=pl.col("year").cast(pl.Int64, strict=False).fill_null(titles["year"]),
        genres=pl.col("genres").str.replace_all(" ", "|", literal=True),
    )
    return _tables(members, interactions, movies, users)


def read_100k(members: ArchiveMembers) -> Tables:
    """Read `u.data`, `u.item`, `u.genre` and `u.user` of ml-100k."""
    genres = _rows(members, "u.genre", "|", {"name": pl.String, "column": pl.Int64})
    names: list[str] = genres.sort("column")["name"].to_list()
    columns = {
        "movie_id": pl.Int64,
        **dict.fromkeys(("title", "release_date", "video_date", "url"), pl.String),
        **dict.fromkeys(names, pl.Int64),
    }
    set_names = [pl.when(pl.col(name) == 1).then(pl.lit(name)) for name in names]
    movies = _split_title(_rows(members, "u.item", "|", columns)).with_columns(
        genres=pl.concat_str(set_names, separator="|", ignore_nulls=True)
    )
    interactions = _rows(members, "u.data", "\t", _RATING_COLUMNS)
    return _tables(members, interactions, movies, _rows(members, "u.user", "|", _USER_COLUMNS))


def read_1m(members: ArchiveMembers) -> Tables:
    """Read `ratings.dat`, `movies.dat` and `users.dat` of ml-1m; decode ages and occupations."""
    columns = {
        "user_id": pl.Int64,
        "gender": pl.String,
        **dict.fromkeys(("age", "occupation"), pl.Int64),
        "zip_code": pl.String,
    }
    users = _rows(members, "users.dat", "::", columns)
    occupations = dict(enumerate(_OCCUPATIONS_1M.split("|")))
    for column, codes in (("age", _AGE_GROUPS_1M), ("occupation", occupations)):
        unknown = users.filter(~pl.col(column).is_in(list(codes)))[column].unique()
        if len(unknown):
            raise ArchiveError(
                f"{members.name}: each `{column}` in `users.dat` must be a code of the README, "
                f"got {sorted(unknown.to_list())[:3]}"
            )
        users = users.with_columns(pl.col(column).replace_strict(codes, return_dtype=pl.String))
    interactions = _rows(members, "ratings.dat", "::", _RATING_COLUMNS)
    movies = _split_title(_rows(members, "movies.dat", "::", _MOVIE_COLUMNS))
    return _tables(members, interactions, movies, users.select(*_USER_COLUMNS))


def read_latest(members: ArchiveMembers) -> Tables:
    """Read `ratings.csv` and `movies.csv` of ml-latest, ml-latest-small, ml-20m, ml-25m or ml-32m.

    These releases have no table of users.
    """
    tables = []
    ratings = _RATING_COLUMNS | {"rating": pl.Float64}
    for member, header, schema in (
        ("ratings.csv", "userId,movieId,rating,timestamp", ratings),
        ("movies.csv", "movieId,title,genres", _MOVIE_COLUMNS),
    ):
        content, where = members.read(member), f"{members.name}: `{member}`"
        check_columns(content, ",", header.split(","), where)
        tables.append(read_csv(content, where=where, schema=schema, has_header=False, skip_rows=1))
    interactions, movies = tables
    movies = _split_title(movies).with_columns(pl.col("genres").replace(_NO_GENRES_LATEST, ""))
    return _tables(members, interactions, movies)


def check(tables: Tables, expected: Mapping[str, int] | None) -> None:
    """Raise ArchiveError unless the tables are complete and consistent.

    `expected` has the counts of the release, or is None if they are not fixed.
    """
    if expected is not None and dict(tables.counts) != dict(expected):
        raise ArchiveError(
            f"{tables.source} must have {show_counts(expected)}, got {show_counts(tables.counts)}. "
            "Is it the right release, and complete?"
        )
    interactions = tables.files["interactions.csv"]
    if not len(interactions):
        raise ArchiveError(f"{tables.source} has no interactions")
    for column, name in (("movie_id", "movies.csv"), ("user_id", "users.csv")):
        if name not in tables.files:
            continue
        table = tables.files[name]
        repeated = table.filter(pl.col(column).is_duplicated())[column].unique()
        if len(repeated):
            raise ArchiveError(
                f"{tables.source}: each `{column}` must be unique in its table, but "
                f"{len(repeated)} are repeated: {sorted(repeated.to_list())[:3]}"
            )
        unknown = interactions.join(table, on=column, how="anti")[column].unique()
        if len(unknown):
            raise ArchiveError(
                f"{tables.source}: each `{column}` of the interactions must be in its table, but "
                f"{len(unknown)} are not: {sorted(unknown.to_list())[:3]}"
            )


def _tables(
    members: ArchiveMembers,
    interactions: pl.DataFrame,
    movies: pl.DataFrame,
    users: pl.DataFrame | None = None,
) -> Tables:
    files = {
        "interactions.csv": interactions,
        "movies.csv": movies.select("movie_id", "title", "year", "genres"),
    }
    if users is not None:
        files["users.csv"] = users
    num_users = interactions["user_id"].n_unique() if users is None else len(users)
    counts = {"interactions": len(interactions), "movies": len(movies), "users": num_users}
    return Tables(files, counts, members.name)


def _split_title(movies: pl.DataFrame) -> pl.DataFrame:
    """Split titles such as "Toy Story (1995)" into `title` and `year`; a missing year is null."""
    title = pl.col("title").str.strip_chars()
    return movies.with_columns(
        title=pl.coalesce(title.str.extract(_TITLE_AND_YEAR, 1), title),
        year=title.str.extract(_TITLE_AND_YEAR, 2).cast(pl.Int64),
    )


def _rows(
    members: ArchiveMembers,
    member: str,
    separator: str,
    schema: Mapping[str, type[pl.DataType]],
    encoding: str = "latin-1",
    skip: int = 0,
) -> pl.DataFrame:
    """Read a file of unquoted fields, without its first `skip` lines."""
    text = members.read(member).decode(encoding).rstrip()
    if len(separator) > 1:
        # polars needs a separator of one byte; no MovieLens file contains this one.
        text = text.replace(separator, "\x1f")
        separator = "\x1f"
    return read_csv(
        text.encode("utf-8"),
        where=f"{members.name}: `{member}`",
        schema=schema,
        has_header=False,
        skip_rows=skip,
        separator=separator,
        quote_char=None,
    )


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
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ArchiveError(f"{name} must have the SHA-256 {sha256}, got {found}: it is not used")
    return content
