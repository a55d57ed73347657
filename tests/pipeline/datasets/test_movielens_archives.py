from collections.abc import Callable

import pytest

from pipeline.datasets.archive_members import ArchiveMembers
from pipeline.datasets.errors import ArchiveError
from pipeline.datasets.movielens_archives import read_1m, read_100k, read_latest

Open = Callable[[dict[str, bytes]], ArchiveMembers]


def test_100k_turns_flags_into_genres_and_splits_the_year(
    ml_100k_members: dict[str, bytes],
    opened: Open,
) -> None:
    tables = read_100k(opened(ml_100k_members))
    assert tables.movies.rows() == [
        (1, "Misérables, Les", 1995, "Comedy|Drama"),
        (2, "Land Before Time", 1995, "Animation|Children's"),
        (3, "unknown", None, "unknown"),
    ]
    assert tables.movies.columns == ["movie_id", "title", "year", "genres"]


def test_100k_keeps_the_order_of_ratings_and_zip_codes_as_text(
    ml_100k_members: dict[str, bytes],
    opened: Open,
) -> None:
    tables = read_100k(opened(ml_100k_members))
    assert tables.interactions.row(0) == (7, 1, 5, 881250949)
    assert tables.users is not None
    assert tables.users.rows() == [
        (7, 24, "M", "technician", "05201"),
        (8, 53, "F", "other", "T8H1N"),
    ]


def test_1m_names_ages_and_occupations(ml_1m_members: dict[str, bytes], opened: Open) -> None:
    tables = read_1m(opened(ml_1m_members))
    assert tables.users is not None
    assert tables.users.columns == ["user_id", "age", "gender", "occupation", "zip_code"]
    assert tables.users.rows() == [
        (1, "Under 18", "F", "K-12 student", "48067"),
        (2, "56+", "M", "self-employed", "70072-1234"),
    ]


def test_1m_splits_at_double_colons_only(ml_1m_members: dict[str, bytes], opened: Open) -> None:
    tables = read_1m(opened(ml_1m_members))
    assert tables.movies.row(0) == (10, "Café: Crème", 1998, "Comedy|Drama")


@pytest.mark.parametrize("row", [b"1::F::2::10::48067\n", b"1::F::1::21::48067\n"])
def test_1m_refuses_an_unknown_code(
    ml_1m_members: dict[str, bytes], opened: Open, row: bytes
) -> None:
    with pytest.raises(ArchiveError, match="must be a code of the README"):
        read_1m(opened({**ml_1m_members, "ml-1m/users.dat": row}))


def test_latest_has_half_stars_and_no_users(
    ml_latest_members: dict[str, bytes], opened: Open
) -> None:
    tables = read_latest(opened(ml_latest_members))
    assert tables.users is None
    assert tables.interactions.columns == ["user_id", "movie_id", "rating", "timestamp"]
    assert tables.interactions.row(0) == (1, 11, 3.5, 964982703)
    assert tables.counts() == {"interactions": 2, "movies": 2, "users": 2}


def test_latest_reads_quotes_and_drops_the_words_for_no_genres(
    ml_latest_members: dict[str, bytes],
    opened: Open,
) -> None:
    tables = read_latest(opened(ml_latest_members))
    assert tables.movies.rows() == [
        (11, "American President, The", 1995, "Comedy|Drama"),
        (12, '"Great" Performances (1971– )', None, ""),
    ]


def test_latest_refuses_other_columns(ml_latest_members: dict[str, bytes], opened: Open) -> None:
    members = {**ml_latest_members, "ml-latest-small/ratings.csv": b"a,b\n1,2\n"}
    with pytest.raises(ArchiveError, match=r"must have the columns userId.*got a, b"):
        read_latest(opened(members))


def test_names_the_file_of_another_release(
    ml_latest_members: dict[str, bytes], opened: Open
) -> None:
    with pytest.raises(ArchiveError, match=r"must hold `users\.dat`.*Is it this release"):
        read_1m(opened(ml_latest_members))
