"""GroupLens' own archives: MovieLens 100K, 1M and the "latest" family.

Each release has its own layout; all are read into the same tables.

References:
    The README in each archive names the columns and codes.
"""

from collections.abc import Mapping

import polars as pl

from pipeline.datasets.archive_members import ArchiveMembers, parse_rows, read_csv
from pipeline.datasets.errors import ArchiveError
from pipeline.datasets.movielens_tables import MovieLensTables, split_title_and_year

COUNTS_1M = {"interactions": 1_000_209, "movies": 3_883, "users": 6_040}

RATING_COLUMNS = {
    "user_id": pl.Int64,
    "movie_id": pl.Int64,
    "rating": pl.Int64,
    "timestamp": pl.Int64,
}
USER_COLUMNS_100K = {
    "user_id": pl.Int64,
    "age": pl.Int64,
    "gender": pl.String,
    "occupation": pl.String,
    "zip_code": pl.String,
}

# The README of ml-1m: an age is given as the first year of its group.
_AGE_GROUPS_1M = {
    1: "Under 18",
    18: "18-24",
    25: "25-34",
    35: "35-44",
    45: "45-49",
    50: "50-55",
    56: "56+",
}
# The README of ml-1m, in the order of the codes from 0.
_OCCUPATIONS_1M = (
    "other",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)
_NO_GENRES_LATEST = "(no genres listed)"


def read_100k(members: ArchiveMembers) -> MovieLensTables:
    """Read ml-100k: `u.data`, `u.item`, `u.genre` and `u.user`, in latin-1.

    Args:
        members: ml-100k.zip or its folder.

    Returns:
        The tables; the genres of a film in the order of `u.genre`.

    Raises:
        ArchiveError: a file is missing or is not as it must be.
    """

    def rows(member: str, separator: str, schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
        return parse_rows(
            members.text(member, "latin-1"),
            where=f"{members.name}: `{member}`",
            separator=separator,
            schema=schema,
        )

    genres = rows("u.genre", "|", {"genre": pl.String, "flag": pl.Int64})
    names: list[str] = genres.sort("flag")["genre"].to_list()
    items = rows(
        "u.item",
        "|",
        {
            "movie_id": pl.Int64,
            "title": pl.String,
            **dict.fromkeys(("release_date", "video_date", "url"), pl.String),
            **dict.fromkeys(names, pl.Int64),
        },
    )
    set_names = [pl.when(pl.col(name) == 1).then(pl.lit(name)) for name in names]
    return MovieLensTables(
        interactions=rows("u.data", "\t", RATING_COLUMNS),
        movies=split_title_and_year(items).select(
            "movie_id",
            "title",
            "year",
            genres=pl.concat_str(set_names, separator="|", ignore_nulls=True),
        ),
        users=rows("u.user", "|", USER_COLUMNS_100K),
        source=members.name,
    )


def read_1m(members: ArchiveMembers) -> MovieLensTables:
    """Read ml-1m: `ratings.dat`, `movies.dat` and `users.dat`, split by "::", in latin-1.

    Args:
        members: ml-1m.zip or its folder.

    Returns:
        The tables; ages and occupations as the names that the README gives to their codes.

    Raises:
        ArchiveError: a file is missing, is not as it must be, or holds an unknown code.
    """

    def rows(member: str, schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
        return parse_rows(
            members.text(member, "latin-1"),
            where=f"{members.name}: `{member}`",
            separator="::",
            schema=schema,
        )

    users = rows(
        "users.dat",
        {
            "user_id": pl.Int64,
            "gender": pl.String,
            "age": pl.Int64,
            "occupation": pl.Int64,
            "zip_code": pl.String,
        },
    )
    occupations = dict(enumerate(_OCCUPATIONS_1M))
    for column, codes in (("age", _AGE_GROUPS_1M), ("occupation", occupations)):
        unknown = users.filter(~pl.col(column).is_in(list(codes)))[column].unique()
        if len(unknown):
            raise ArchiveError(
                f"{members.name}: each `{column}` in `users.dat` must be a code of the README, "
                f"got {sorted(unknown.to_list())[:3]}"
            )
    movies = rows("movies.dat", {"movie_id": pl.Int64, "title": pl.String, "genres": pl.String})
    return MovieLensTables(
        interactions=rows("ratings.dat", RATING_COLUMNS),
        movies=split_title_and_year(movies).select("movie_id", "title", "year", "genres"),
        users=users.select(
            "user_id",
            pl.col("age").replace_strict(_AGE_GROUPS_1M, return_dtype=pl.String),
            "gender",
            pl.col("occupation").replace_strict(occupations, return_dtype=pl.String),
            "zip_code",
        ),
        source=members.name,
    )


def read_latest(members: ArchiveMembers) -> MovieLensTables:
    """Read ml-latest, ml-latest-small or a numbered release of that layout (20M, 25M, 32M).

    Args:
        members: the zip file or its folder, with `ratings.csv` and `movies.csv` in UTF-8.

    Returns:
        The tables, without users: these releases tell nothing about them.

    Raises:
        ArchiveError: a file is missing or is not as it must be.
    """
    ratings = _csv(
        members,
        "ratings.csv",
        {"userId": pl.Int64, "movieId": pl.Int64, "rating": pl.Float64, "timestamp": pl.Int64},
    )
    movies = _csv(
        members, "movies.csv", {"movieId": pl.Int64, "title": pl.String, "genres": pl.String}
    )
    return MovieLensTables(
        interactions=ratings.rename({"userId": "user_id", "movieId": "movie_id"}),
        movies=split_title_and_year(movies).select(
            pl.col("movieId").alias("movie_id"),
            "title",
            "year",
            pl.col("genres").replace(_NO_GENRES_LATEST, ""),
        ),
        users=None,
        source=members.name,
    )


def _csv(
    members: ArchiveMembers, member: str, schema: Mapping[str, type[pl.DataType]]
) -> pl.DataFrame:
    content = members.read(member)
    header = content.partition(b"\n")[0].decode("utf-8", "replace").strip().split(",")
    if header != list(schema):
        raise ArchiveError(
            f"{members.name}: `{member}` must have the columns {', '.join(schema)}, "
            f"got {', '.join(header)[:100]}"
        )
    return read_csv(content, where=f"{members.name}: `{member}`", schema=schema)
