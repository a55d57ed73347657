"""The one format that every MovieLens release is brought into."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.datasets.errors import ArchiveError
from pipeline.datasets.manifest import in_words, write_manifest

# "Toy Story (1995)", and of the films that went straight to video "… (1995) (V)".
_TITLE_AND_YEAR = r"^(.*?)\s*\((\d{4})\)\s*(?:\(V\))?\s*$"


@dataclass(frozen=True)
class MovieLensTables:
    """One MovieLens release.

    Attributes:
        interactions: user_id, movie_id, rating, timestamp (seconds since 1970).
        movies: movie_id, title (without the year), year (null where unknown), genres (joined
            by "|", empty where there are none).
        users: user_id, age, gender, occupation, zip_code; None where the release has no users.
        source: where the tables came from, in words.
    """

    interactions: pl.DataFrame
    movies: pl.DataFrame
    users: pl.DataFrame | None
    source: str

    def counts(self) -> dict[str, int]:
        """Return how many interactions, movies and users there are."""
        users = self.interactions["user_id"].n_unique() if self.users is None else len(self.users)
        return {"interactions": len(self.interactions), "movies": len(self.movies), "users": users}


def split_title_and_year(movies: pl.DataFrame) -> pl.DataFrame:
    """Split GroupLens' "Toy Story (1995)" in `title` into `title` and `year`.

    Args:
        movies: holds a column `title` of strings.

    Returns:
        `movies` with `title` as it stands without its year, and `year`, null where it has none.
    """
    title = pl.col("title").str.strip_chars()
    return movies.with_columns(
        title=pl.coalesce(title.str.extract(_TITLE_AND_YEAR, 1), title),
        year=title.str.extract(_TITLE_AND_YEAR, 2).cast(pl.Int64),
    )


def check_tables(tables: MovieLensTables, expected: dict[str, int] | None) -> None:
    """Check that the tables are whole and fit together.

    Args:
        tables: what was read.
        expected: the counts that the release is known to have; None where they change over time.

    Raises:
        ArchiveError: a count differs, an id stands twice or an interaction's movie or user is
            not in its table.
    """
    counts = tables.counts()
    if expected is not None and counts != expected:
        raise ArchiveError(
            f"{tables.source} must hold {in_words(expected)}, got {in_words(counts)}. "
            "Is it this release, and is it whole?"
        )
    if not counts["interactions"]:
        raise ArchiveError(f"{tables.source} holds no interactions")
    for column, table in (("movie_id", tables.movies), ("user_id", tables.users)):
        if table is None:
            continue
        twice = table.filter(pl.col(column).is_duplicated())[column].unique()
        if len(twice):
            raise ArchiveError(
                f"{tables.source}: each `{column}` must stand once in its table, "
                f"{len(twice)} stand more often: {sorted(twice.to_list())[:3]}"
            )
        unknown = tables.interactions.join(table, on=column, how="anti")[column].unique()
        if len(unknown):
            raise ArchiveError(
                f"{tables.source}: each `{column}` of the interactions must be in its table, "
                f"{len(unknown)} are not: {sorted(unknown.to_list())[:3]}"
            )


def write_tables(name: str, tables: MovieLensTables, folder: Path) -> None:
    """Write the tables as CSV files and the manifest into `folder`.

    Args:
        name: the dataset's name.
        tables: what to write.
        folder: an empty folder.
    """
    files = {"interactions.csv": tables.interactions, "movies.csv": tables.movies}
    if tables.users is not None:
        files["users.csv"] = tables.users
    for file_name, table in files.items():
        table.write_csv(folder / file_name)
    write_manifest(folder, name, tables.source, tables.counts(), list(files))
