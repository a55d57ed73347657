"""`two-tower data`: prepare a public dataset."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import fail, stdout
from pipeline.datasets.releases import Dataset, MovieLens


def default_data_dir() -> Path:
    """Return `data` in the project's root, or in the working directory of an installed copy."""
    root = Path(__file__).resolve().parents[2]
    return (root if (root / "setup.py").is_file() else Path.cwd()) / "data"


def data(
    name: Annotated[Dataset, typer.Argument(help="Which dataset.")],
    archive: Annotated[
        list[Path] | None,
        typer.Option(
            help="The zip file or its unpacked folder, instead of a download; retailrocket's two "
            "files may be given one by one."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="The folder to make the dataset's folder in. [default: data]"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it anew if it is there.")] = False,
) -> None:
    """Prepare a public dataset as CSV files: interactions and, where there are any, features.

    movielens-100k is downloaded; the others are read from archives that you have.
    """
    from pipeline.datasets import movielens, retailrocket
    from pipeline.datasets.errors import ArchiveError, DatasetError

    folder, archives = data_dir or default_data_dir(), archive or []
    try:
        if name is Dataset.RETAILROCKET:
            prepared = retailrocket.prepare(folder, archive=archives, force=force)
        elif len(archives) > 1:
            raise ArchiveError(f"{name.value} is read from one --archive, got {len(archives)}")
        else:
            one = archives[0] if archives else None
            release = MovieLens(name.value)
            prepared = movielens.prepare(release, folder, archive=one, force=force)
    except DatasetError as error:
        fail(str(error))
    if prepared.counts is None:
        message = f"{name.value} is already there: {prepared.folder} (--force makes it anew)"
    else:
        counts = ", ".join(f"{count:,} {what}" for what, count in prepared.counts.items())
        message = f"{name.value}: {counts} in {prepared.folder}"
    stdout().print(message, markup=False, soft_wrap=True)
