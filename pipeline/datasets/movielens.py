"""Prepare a MovieLens release as a folder of CSV files."""

from pathlib import Path

from pipeline.datasets.archive_members import ArchiveMembers
from pipeline.datasets.atomic_folder import atomic_folder
from pipeline.datasets.errors import ArchiveError, DestinationError
from pipeline.datasets.manifest import Prepared, is_complete
from pipeline.datasets.movielens_100k import COUNTS_100K, download
from pipeline.datasets.movielens_archives import COUNTS_1M, read_1m, read_100k, read_latest
from pipeline.datasets.movielens_tables import check_tables, write_tables
from pipeline.datasets.releases import MovieLens

_READERS = {MovieLens.ML_100K: read_100k, MovieLens.ML_1M: read_1m, MovieLens.LATEST: read_latest}
# "latest" grows with each release, so its counts cannot be pinned.
_COUNTS = {MovieLens.ML_100K: COUNTS_100K, MovieLens.ML_1M: COUNTS_1M, MovieLens.LATEST: None}


def prepare(
    release: MovieLens, data_dir: Path, *, archive: Path | None = None, force: bool = False
) -> Prepared:
    """Write a release's interactions, movies and users as CSV files.

    Args:
        release: which one.
        data_dir: the folder that holds one folder for each dataset.
        archive: GroupLens' zip file or its unpacked folder. Only MovieLens 100K can be had
            without one: it is downloaded.
        force: make it anew even where it is complete.

    Returns:
        The folder, and the counts if it was made now.

    Raises:
        DownloadError: no source could be reached.
        ArchiveError: the archive is missing or is not what it must be.
        DestinationError: the folder could not be written.
    """
    folder = data_dir / release.folder_name
    if is_complete(folder) and not force:
        return Prepared(folder, None)
    if archive is None and release is not MovieLens.ML_100K:
        raise ArchiveError(
            f"{release.value} is read from GroupLens' own archive: get it from "
            "https://grouplens.org/datasets/movielens/ and give it with --archive FILE"
        )
    with atomic_folder(folder) as partial:
        if archive is None:
            tables = download()
        else:
            tables = _READERS[release](ArchiveMembers(archive, str(archive)))
        check_tables(tables, _COUNTS[release])
        try:
            write_tables(release.value, tables, partial)
        except OSError as error:
            raise DestinationError(
                f"{folder} could not be written: {error}. Is there space on the disk?"
            ) from error
    return Prepared(folder, tables.counts())
