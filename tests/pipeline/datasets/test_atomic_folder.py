import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.datasets.atomic_folder import atomic_folder
from pipeline.datasets.errors import DestinationError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "deep" / "set") as partial:
        (partial / "a.csv").write_text("1")
        assert not (tmp_path / "deep" / "set").exists()
    assert names(tmp_path / "deep") == ["set"]
    assert names(tmp_path / "deep" / "set") == ["a.csv"]


def test_others_may_read_the_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "set"):
        pass
    assert (tmp_path / "set").stat().st_mode & 0o777 == 0o755


def test_replaces_the_old_folder_whole(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "old.csv").write_text("0")
    with atomic_folder(tmp_path / "set") as partial:
        (partial / "new.csv").write_text("1")
    assert names(tmp_path) == ["set"]
    assert names(tmp_path / "set") == ["new.csv"]


def test_leaves_all_as_it_was_when_the_block_raises(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "old.csv").write_text("0")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "set") as partial:
        (partial / "new.csv").write_text(str(1 / 0))
    assert names(tmp_path) == ["set"]
    assert names(tmp_path / "set") == ["old.csv"]


def start_and_wait_inside(destination: Path) -> "subprocess.Popen[bytes]":
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from pipeline.datasets.atomic_folder import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as partial:\n"
        "    (partial / 'half.csv').write_text('1')\n"
        "    time.sleep(60)\n"
    )
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen([sys.executable, "-c", code, str(destination)], cwd=root)
    deadline = time.monotonic() + 30
    while not list(destination.parent.glob(".*/half.csv")) and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def test_a_killed_process_leaves_no_folder_and_the_next_one_clears_up(tmp_path: Path) -> None:
    process = start_and_wait_inside(tmp_path / "set")
    process.kill()
    process.wait()
    assert not (tmp_path / "set").exists()
    with atomic_folder(tmp_path / "set"):
        pass
    assert names(tmp_path) == ["set"]


def test_leaves_the_work_of_a_living_process_alone(tmp_path: Path) -> None:
    process = start_and_wait_inside(tmp_path / "set")
    try:
        with atomic_folder(tmp_path / "set"):
            pass
        assert list(tmp_path.glob(".*/half.csv"))
    finally:
        process.kill()
        process.wait()


def test_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DestinationError, match="--data-dir"),
        atomic_folder(tmp_path / "file" / "set"),
    ):
        pass
