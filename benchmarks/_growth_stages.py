"""Runs the components of a pipeline, each in a process of its own, and notes what each took."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.code_hash import application_hash  # noqa: E402

_LOOK_EVERY_S = 0.2
_OF = "of"

Stage = dict[str, Any]


class TooMuchMemoryError(Exception):
    """A stage was ended because it held more than it may."""


class OtherCodeError(Exception):
    """A folder has what stages of other code, or with other settings, took."""


def run_stages(
    folder: Path,
    names: Sequence[str],
    config: str,
    settings: Sequence[str] = (),
    most_bytes: int = 17 << 30,
) -> dict[str, Stage]:
    """Runs components in order; those that an earlier call in this folder has run are not repeated.

    Args:
        folder: Keeps what each took, `stages.json`, and what each said, `COMPONENT.log`.
        names: Of the components.
        config: Of the pipeline, as `_growth_stage.py` takes it.
        settings: Overrides.
        most_bytes: A stage whose processes hold more together is ended.

    Returns:
        By component: `import_cpu_s` and `cpu_s`, before and after the component begins, of all
        processes that it starts too; `wall_s` after it begins; `process_wall_s` and
        `process_cpu_s` of the whole process; `import_mb` and `peak_mb`, the most resident memory
        before the component begins, and ever, of all its processes together.

    Raises:
        OtherCodeError: The folder holds figures of other code or settings.
        TooMuchMemoryError: A stage was ended.
        CalledProcessError: A stage failed; its log says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "stages.json"
    done: dict[str, Stage] = json.loads(record.read_text()) if record.exists() else {}
    measured_here = {"code": application_hash(), "settings": list(settings)}
    if done.setdefault(_OF, measured_here) != measured_here:
        raise OtherCodeError(f"{record} is of other code or settings: use another folder")
    for name in names:
        if name in done:
            continue
        result = folder / f"{name}.json"
        command = [sys.executable, str(ROOT / "benchmarks" / "_growth_stage.py")]
        command += [str(result), "growth", name, config, *settings]
        print(f"{time.strftime('%H:%M:%S')} {name} …", file=sys.stderr, flush=True)
        measured = measure(command, folder / f"{name}.log", most_bytes)
        found = json.loads(result.read_text())
        # Between two looks it may have held more.
        measured["peak_mb"] = max(measured["peak_mb"], found.pop("own_peak_mb"))
        done[name] = {**found, **measured}
        record.write_text(json.dumps(done, indent=2))
        shown = ", ".join(
            f"{key} {value:.1f}" for key, value in done[name].items() if key != "state"
        )
        print(f"{time.strftime('%H:%M:%S')} {name}: {shown}", file=sys.stderr, flush=True)
    return {name: done[name] for name in names}


def measure(command: Sequence[str], log: Path, most_bytes: int = 17 << 30) -> dict[str, float]:
    """Runs a command to its end.

    Returns:
        `process_wall_s`, `process_cpu_s` of it and of what it waited for, and `peak_mb`.
    """
    before = _children_cpu_s()
    started = time.monotonic()
    peak = 0
    with log.open("w") as said:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                peak = max(peak, resident_bytes(process.pid))
                if peak > most_bytes:
                    raise TooMuchMemoryError(f"{' '.join(command)} held {peak / 2**30:.1f} GiB")
                time.sleep(_LOOK_EVERY_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {
        "process_wall_s": time.monotonic() - started,
        "process_cpu_s": _children_cpu_s() - before,
        "peak_mb": peak / 2**20,
    }


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident_bytes(pid: int) -> int:
    """Returns what a process and its descendants hold together."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        pass
    return total
