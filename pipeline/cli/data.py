"""`two-tower data`: prepare a public dataset."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import fail, stdout
from pipeline.datasets.dataset import Dataset, prepare


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
    from pipeline.errors import DatasetError

    folder = data_dir or default_data_dir()
    try:
        prepared = prepare(name, folder, archives=archive or [], force=force)
    except DatasetError as error:
        fail(str(error))
    if prepared.counts is None:
        message = f"{name.value} is already there: {prepared.folder} (--force makes it anew)"
    else:
        counts = ", ".join(f"{count:,} {what}" for what, count in prepared.counts.items())
        message = f"{name.value}: {counts} in {prepared.folder}"
    stdout().print(message, markup=False, soft_wrap=True)
