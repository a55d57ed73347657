"""Reader of RetailRocket: view sessions of a shop, as filtered and renumbered for COTREC.

Sessions have at least three events. The timestamps are artificial: events are one second apart in
their original order. All test events are later than all training events, so a temporal split at the
first test event reproduces the two files.

References:
    Xia, Yin, Yu, Shao, Cui. Self-Supervised Graph Co-Training for Session-based Recommendation.
    CIKM 2021.
"""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipeline.datasets.dataset import ArchiveMembers, Tables, check_columns, read_csv, show_counts
from pipeline.errors import ArchiveError, reason_of

TRAIN_FILE, TEST_FILE = "retailrocket_train.tsv.gz", "retailrocket_test.tsv.gz"
TRAIN_COUNTS = {"sessions": 126_168, "events": 685_984, "items": 36_968}
TEST_COUNTS = {"sessions": 4_735, "events": 24_602, "items": 8_777}

_COLUMNS = {"SessionId": "session_id", "ItemId": "item_id", "Time": "timestamp"}


def read(archives: Sequence[Path]) -> Tables:
    """Read both files as one table `interactions.csv`, training events first.

    `archives` has the folder or zip file that contains the two files, or the two files themselves.
    They may be decompressed, without the suffix `.gz`.

    Raises:
        ArchiveError: A file is missing or is not the expected one.
    """
    if not archives:
        raise ArchiveError(
            f"retailrocket is read from {TRAIN_FILE} and {TEST_FILE}: give their folder, or each "
            "file, with --archive"
        )
    found = []
    for name, expected in ((TRAIN_FILE, TRAIN_COUNTS), (TEST_FILE, TEST_COUNTS)):
        found.append(_sessions(archives, name))
        if (counts := _counts(found[-1])) != expected:
            raise ArchiveError(
                f"{name} must have {show_counts(expected)}, got {show_counts(counts)}. Is it "
                "complete?"
            )
    train, test = found
    _check_order(train, test)
    events = pl.concat([train, test])
    source = ", ".join(str(path) for path in archives)
    return Tables({"interactions.csv": events}, _counts(events), source)


def _sessions(archives: Sequence[Path], name: str) -> pl.DataFrame:
    content, where = _content(archives, (name, name.removesuffix(".gz")))
    if where.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ArchiveError(f"{where} must be a complete gzip file, got: {error}") from error
    check_columns(content, "\t", list(_COLUMNS), where)
    schema = dict.fromkeys(_COLUMNS, pl.Int64)
    return read_csv(content, where=where, schema=schema, separator="\t").rename(_COLUMNS)


def _content(archives: Sequence[Path], names: Sequence[str]) -> tuple[bytes, str]:
    """Return the content of the first file with one of `names`, and its path for messages."""
    for path in archives:
        if path.name in names and path.is_file():
            try:
                return path.read_bytes(), str(path)
            except OSError as error:
                raise ArchiveError(f"{path} cannot be read: {reason_of(error)}") from error
        if path.is_dir() or path.suffix == ".zip":
            members = ArchiveMembers(path, str(path))
            for name in names:
                if members.has(name):
                    return members.read(name), f"{path}: {name}"
    raise ArchiveError(f"{names[0]} is not in {', '.join(str(path) for path in archives)}")


def _counts(events: pl.DataFrame) -> dict[str, int]:
    return {
        "sessions": events["session_id"].n_unique(),
        "events": len(events),
        "items": events["item_id"].n_unique(),
    }


def _check_order(train: pl.DataFrame, test: pl.DataFrame) -> None:
    latest = int(train.sort("timestamp")["timestamp"][-1])
    earliest = int(test.sort("timestamp")["timestamp"][0])
    shared = len(train.join(test, on="session_id", how="semi"))
    if latest >= earliest or shared:
        raise ArchiveError(
            f"every event of {TEST_FILE} must be later than those of {TRAIN_FILE} and in another "
            f"session; the last training event is at {latest}, the first test event at {earliest}, "
            f"and {shared} training events are in a test session"
        )
