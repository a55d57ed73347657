import fcntl
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RunInProgressError
from pipeline.runs.lock import is_locked, run_lock


def test_the_lock_names_the_process_that_holds_it(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with run_lock(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(RunInProgressError, match=f"process {os.getpid()}"), run_lock(tmp_path):
            pass
    assert not is_locked(tmp_path)


def test_looking_at_the_lock_does_not_block_a_run(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    looking = (tmp_path / "lock").open()
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.06, looking.close).start()
    with run_lock(tmp_path):
        pass


def test_a_run_can_wait_for_the_lock(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    other = (tmp_path / "lock").open()
    fcntl.flock(other, fcntl.LOCK_EX)
    threading.Timer(0.4, other.close).start()
    with run_lock(tmp_path, wait_s=20):
        assert other.closed


def test_a_removed_lock_file_protects_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "runs"
    real = fcntl.flock

    def removed_meanwhile(file: Any, operation: int) -> None:
        real(file, operation)
        if run_dir.exists() and not (tmp_path / "removed").exists():
            (tmp_path / "removed").touch()
            shutil.rmtree(run_dir)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with run_lock(run_dir):
        assert is_locked(run_dir)
        with pytest.raises(RunInProgressError), run_lock(run_dir):
            pass
