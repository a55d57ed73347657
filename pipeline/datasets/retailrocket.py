"""RetailRocket: view sessions of a shop, as filtered and renumbered for COTREC.

Sessions have at least three events. The times keep the order only, one second an event: the
original ones did not survive the preprocessing. Every test event is later than every training
event, so a temporal split at the first test event gives the two files back.

References:
    Xia, Yin, Yu, Shao, Cui. Self-Supervised Graph Co-Training for Session-based Recommendation.
    CIKM 2021.
"""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipeline.datasets.archive_members import ArchiveMembers, read_csv
from pipeline.datasets.atomic_folder import atomic_folder
from pipeline.datasets.errors import ArchiveError, DestinationError
from pipeline.datasets.manifest import Prepared, in_words, is_complete, write_manifest

NAME = "retailrocket"
TRAIN_FILE, TEST_FILE = "retailrocket_train.tsv.gz", "retailrocket_test.tsv.gz"
TRAIN_COUNTS = {"sessions": 126_168, "events": 685_984, "items": 36_968}
TEST_COUNTS = {"sessions": 4_735, "events": 24_602, "items": 8_777}

_COLUMNS = {"SessionId": "session_id", "ItemId": "item_id", "Time": "timestamp"}


def prepare(data_dir: Path, *, archive: Sequence[Path], force: bool = False) -> Prepared:
    """Write the sessions of both files as one CSV file, training first.

    Args:
        data_dir: the folder that holds one folder for each dataset.
        archive: the folder (or zip file) with the two files, or the two files.
        force: make it anew even where it is complete.

    Returns:
        The folder, and the counts if it was made now.

    Raises:
        ArchiveError: a file is missing or is not what it must be.
        DestinationError: the folder could not be written.
    """
    folder = data_dir / NAME
    if is_complete(folder) and not force:
        return Prepared(folder, None)
    if not archive:
        raise ArchiveError(
            f"{NAME} is read from {TRAIN_FILE} and {TEST_FILE}: give their folder, or each of "
            "them, with --archive"
        )
    train = read_sessions(archive, TRAIN_FILE)
    test = read_sessions(archive, TEST_FILE)
    check_sessions(train, TRAIN_COUNTS, TRAIN_FILE)
    check_sessions(test, TEST_COUNTS, TEST_FILE)
    check_order(train, test)
    events = pl.concat([train, test])
    counts = count(events)
    with atomic_folder(folder) as partial:
        try:
            events.write_csv(partial / "interactions.csv")
            source = ", ".join(str(path) for path in archive)
            write_manifest(partial, NAME, source, counts, ["interactions.csv"])
        except OSError as error:
            raise DestinationError(
                f"{folder} could not be written: {error}. Is there space on the disk?"
            ) from error
    return Prepared(folder, counts)


def read_sessions(archive: Sequence[Path], member: str) -> pl.DataFrame:
    """Return one of the two files as session_id, item_id and timestamp, in its order.

    Args:
        archive: the folder (or zip file) that holds it, or files of which one is it.
        member: its name; it may have been unpacked, and lack its `.gz`.

    Raises:
        ArchiveError: it is not there or cannot be read.
    """
    unpacked = member.removesuffix(".gz")
    content, where = _read(archive, (member, unpacked))
    if where.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ArchiveError(f"{where} must be a whole gzip file, got: {error}") from error
    header = content.partition(b"\n")[0].decode("utf-8", "replace").strip().split("\t")
    if header != list(_COLUMNS):
        raise ArchiveError(
            f"{where} must have the columns {', '.join(_COLUMNS)}, got {', '.join(header)[:100]}"
        )
    schema = dict.fromkeys(_COLUMNS, pl.Int64)
    return read_csv(content, where=where, schema=schema, separator="\t").rename(_COLUMNS)


def count(events: pl.DataFrame) -> dict[str, int]:
    """Return how many sessions, events and items there are."""
    return {
        "sessions": events["session_id"].n_unique(),
        "events": len(events),
        "items": events["item_id"].n_unique(),
    }


def check_sessions(events: pl.DataFrame, expected: dict[str, int], where: str) -> None:
    """Raise ArchiveError where a file holds something else than is known of it."""
    counts = count(events)
    if counts != expected:
        raise ArchiveError(
            f"{where} must hold {in_words(expected)}, got {in_words(counts)}. Is it whole?"
        )


def check_order(train: pl.DataFrame, test: pl.DataFrame) -> None:
    """Raise ArchiveError unless a moment parts the training events from the test events."""
    latest = int(train.sort("timestamp")["timestamp"][-1])
    earliest = int(test.sort("timestamp")["timestamp"][0])
    shared = len(train.join(test, on="session_id", how="semi"))
    if latest >= earliest or shared:
        raise ArchiveError(
            f"every event of {TEST_FILE} must be later than those of {TRAIN_FILE} and of another "
            f"session; the last one to train on is at {latest!r}, the first test event at "
            f"{earliest!r}, and {shared} training events are of a test session"
        )


def _read(archive: Sequence[Path], names: Sequence[str]) -> tuple[bytes, str]:
    for path in archive:
        if path.name in names and path.is_file():
            try:
                return path.read_bytes(), str(path)
            except OSError as error:
                raise ArchiveError(f"{path} cannot be read: {error}") from error
    folders = [path for path in archive if path.is_dir() or path.suffix == ".zip"]
    for path in folders:
        members = ArchiveMembers(path, str(path))
        for name in names:
            if members.holds(name):
                return members.read(name), f"{path}: {name}"
    raise ArchiveError(
        f"{names[0]} must be among {', '.join(str(path) for path in archive)}, and it is not"
    )
