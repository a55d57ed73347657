import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli.data import data
from pipeline.datasets import retailrocket
from pipeline.datasets.dataset import Dataset, Prepared
from pipeline.datasets.retailrocket import TEST_FILE, TRAIN_FILE
from pipeline.errors import ArchiveError
from tests.pipeline.datasets import conftest

TRAIN = [(1, 7, 100), (1, 8, 101), (2, 7, 102)]
TEST = [(3, 8, 103), (3, 8, 104)]

Write = Callable[..., Path]


def prepare(data_dir: Path, archives: list[Path]) -> Prepared:
    return conftest.prepare(Dataset.RETAILROCKET, data_dir, archives)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the two files into a folder and makes their counts the known ones."""
    counts = {"sessions": 2, "events": 3, "items": 2}, {"sessions": 1, "events": 2, "items": 1}
    monkeypatch.setattr(retailrocket, "TRAIN_COUNTS", counts[0])
    monkeypatch.setattr(retailrocket, "TEST_COUNTS", counts[1])

    def write(
        train: list[tuple[int, ...]] = TRAIN,
        test: list[tuple[int, ...]] = TEST,
        header: str = "SessionId\tItemId\tTime",
    ) -> Path:
        for name, rows in ((TRAIN_FILE, train), (TEST_FILE, test)):
            lines = [header, *("\t".join(map(str, row)) for row in rows), ""]
            (tmp_path / name).write_bytes(gzip.compress("\n".join(lines).encode()))
        return tmp_path

    return write


def test_both_files_become_one_with_training_first(write: Write, tmp_path: Path):
    prepared = prepare(tmp_path / "data", [write()])
    assert prepared.counts == {"sessions": 3, "events": 5, "items": 2}
    written = (prepared.folder / "interactions.csv").read_text().splitlines()
    assert written[0] == "session_id,item_id,timestamp"
    assert written[1:] == [",".join(map(str, row)) for row in TRAIN + TEST]
    assert prepare(tmp_path / "data", []).counts is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": TRAIN[:2]}, r"train.* must have 2 sessions, 3 events.* got 1 sessions"),
        ({"test": [(3, 8, 102), (3, 8, 104)]}, "must be later than"),
        ({"test": [(2, 8, 103), (2, 8, 104)]}, "in another session"),
        ({"header": "session\titem\ttime"}, "must have the columns SessionId, ItemId, Time"),
        ({"test": [(3, 8), (3, 8)]}, "a number is missing"),
    ],
)
def test_refuses_what_is_not_the_set_and_writes_nothing(
    write: Write, tmp_path: Path, changes: dict[str, object], message: str
):
    with pytest.raises(ArchiveError, match=message):
        prepare(tmp_path / "data", [write(**changes)])
    assert not (tmp_path / "data").exists()


def test_names_a_file_that_is_missing_or_broken(write: Write, tmp_path: Path):
    folder = write()
    with pytest.raises(ArchiveError, match=r"retailrocket_test\.tsv\.gz is not in"):
        prepare(tmp_path / "data", [folder / TRAIN_FILE])
    (folder / TEST_FILE).write_bytes((folder / TEST_FILE).read_bytes()[:-9])
    with pytest.raises(ArchiveError, match="must be a complete gzip file"):
        prepare(tmp_path / "data", [folder])


def test_the_command_takes_both_files_packed_or_not(write: Write, tmp_path: Path):
    app = typer.Typer()
    app.command()(data)
    folder = write()
    unpacked = tmp_path / "retailrocket_train.tsv"
    unpacked.write_bytes(gzip.decompress((folder / TRAIN_FILE).read_bytes()))
    options = ["--data-dir", str(tmp_path / "data")]
    result = CliRunner().invoke(app, ["retailrocket", *options])
    assert result.exit_code == 1
    assert "with --archive" in result.output
    files = ["--archive", str(folder / TEST_FILE), "--archive", str(unpacked)]
    result = CliRunner().invoke(app, ["retailrocket", *files, *options])
    assert result.exit_code == 0, result.output
    assert "3 sessions, 5 events, 2 items" in result.output
