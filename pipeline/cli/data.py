"""`two-tower data`: prepare a public dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.output import say
from pipeline.datasets.dataset import Dataset, Tables, prepare, show_counts


def default_data_dir() -> Path:
    """Return `data` in the repository, or in the working directory if the package is installed."""
    root = Path(__file__).resolve().parents[2]
    return (root if (root / "setup.py").is_file() else Path.cwd()) / "data"


def read_dataset(dataset: Dataset, archives: Sequence[Path]) -> Tables:
    """Read a dataset from its archives, or download it if there are none and it is public.

    Raises:
        DownloadError: No source can be reached.
        ArchiveError: The archive is missing, incomplete or the wrong one.
    """
    if dataset is Dataset.RETAILROCKET:
        from pipeline.datasets import retailrocket

        return retailrocket.read(archives)
    from pipeline.datasets import movielens

    return movielens.read(dataset, archives)


@command
def data(
    name: Annotated[Dataset, typer.Argument()],
    archive: list[Path] | None = None,
    data_dir: Annotated[Path | None, typer.Option(show_default="data")] = None,
    force: bool = False,
) -> None:
    """Prepare a public dataset as CSV files of interactions and features.

    movielens-100k is downloaded. For the others, download the archive and give it as --archive.

    Example: two-tower data movielens-100k

    Args:
        name: Dataset to prepare.
        archive (PATH): Downloaded zip file, or the folder with its content. Repeat it for the two
            files of retailrocket.
        data_dir (FOLDER): Folder in which the dataset's folder is created.
        force: Prepare the dataset again if it exists.
    """
    folder, counts = prepare(
        name, data_dir or default_data_dir(), lambda: read_dataset(name, archive or []), force=force
    )
    if counts is None:
        say(f"{name.value} exists already in {folder}; --force prepares it again")
    else:
        say(f"{name.value}: {show_counts(counts)} in {folder}")
