import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.cli.data import read_dataset
from pipeline.datasets import dataset as datasets
from pipeline.datasets.dataset import ArchiveMembers, Dataset, Prepared

GENRES = ["unknown", "Action", "Animation", "Children's", "Comedy", "Drama"]


def prepare(
    dataset: Dataset, data_dir: Path, archives: Sequence[Path] = (), *, force: bool = False
) -> Prepared:
    """Prepare a dataset as the command does."""
    return datasets.prepare(dataset, data_dir, lambda: read_dataset(dataset, archives), force=force)


def zip_of(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def _item_row(movie_id: int, title: str, genres: str) -> str:
    flags = "|".join("1" if genre in genres.split() else "0" for genre in GENRES)
    return f"{movie_id}|{title}|01-Jan-1995||http://example.org/?{movie_id}|{flags}\n"


@pytest.fixture
def ml_100k_members() -> dict[str, bytes]:
    """Three films in GroupLens' layout: a plain one, one gone to video, one without a year."""
    items = (
        _item_row(1, "Misérables, Les (1995)", "Drama Comedy")
        + _item_row(2, "Land Before Time (1995) (V)", "Animation Children's")
        + _item_row(3, "unknown", "unknown")
    )
    return {
        "ml-100k/u.data": b"7\t1\t5\t881250949\n8\t2\t3\t891717742\n8\t3\t1\t891717743\n",
        "ml-100k/u.item": items.encode("latin-1"),
        "ml-100k/u.user": b"7|24|M|technician|05201\n8|53|F|other|T8H1N\n",
        "ml-100k/u.genre": "".join(f"{g}|{i}\n" for i, g in enumerate(GENRES)).encode() + b"\n",
    }


@pytest.fixture
def wheel_members() -> dict[str, bytes]:
    """The same three films as RecBole's wheel holds them, with what went wrong there."""
    items = (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tMisérables, Les\t1995\tComedy Drama\n"
        "2\tLand Before Time (1995)\tV\tAnimation Children's\n"
        "3\tunkonwn\tunkonwn\tunknown"
    )
    folder = "recbole/dataset_example/ml-100k"
    return {
        f"{folder}/ml-100k.inter": (
            b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            b"7\t1\t5\t881250949\n8\t2\t3\t891717742\n8\t3\t1\t891717743\n"
        ),
        f"{folder}/ml-100k.item": items.encode(),
        f"{folder}/ml-100k.user": (
            b"user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
            b"7\t24\tM\ttechnician\t05201\n8\t53\tF\tother\tT8H1N\n"
        ),
    }


@pytest.fixture
def ml_1m_members() -> dict[str, bytes]:
    return {
        "ml-1m/ratings.dat": b"1::10::5::978300760\n2::11::3::978302109\n",
        "ml-1m/movies.dat": (
            "10::Café: Crème (1998)::Comedy|Drama\n11::Alien (1979)::Action\n".encode("latin-1")
        ),
        "ml-1m/users.dat": b"1::F::1::10::48067\n2::M::56::16::70072-1234\n",
    }


@pytest.fixture
def ml_latest_members() -> dict[str, bytes]:
    movies = (
        "movieId,title,genres\n"
        '11,"American President, The (1995)",Comedy|Drama\n'
        '12,"""Great"" Performances (1971– )",(no genres listed)\n'
    )
    return {
        "ml-latest-small/ratings.csv": b"userId,movieId,rating,timestamp\n1,11,3.5,964982703\n"
        b"2,12,4.0,964982704\n",
        "ml-latest-small/movies.csv": movies.encode(),
    }


def opened(members: dict[str, bytes]) -> ArchiveMembers:
    return ArchiveMembers(zip_of(members), "given.zip")


@pytest.fixture
def write_zip(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    def write(members: dict[str, bytes]) -> Path:
        path = tmp_path / "archive.zip"
        path.write_bytes(zip_of(members))
        return path

    return write
