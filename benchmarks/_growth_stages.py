"""Run the components of a pipeline, each in a new process, and record their times and memory.

Run as a script, this module runs one component and writes the measurements to RESULT as JSON:

    python benchmarks/_growth_stages.py RESULT RUN_ID COMPONENT CONFIG [KEY=VALUE ...]

CONFIG can be `stock:FOLDER:CSV` for the pipeline of TFX's own components (`_stock_chain.py`).
"""

import gc
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

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.code_hash import application_hash  # noqa: E402

_POLL_S = 0.2
_OF = "of"
_STOCK = "stock:"

Stage = dict[str, Any]


class TooMuchMemoryError(Exception):
    """A stage was killed because it used too much memory."""


class OtherCodeError(Exception):
    """The folder contains measurements of different code or settings."""


def run_stages(
    folder: Path,
    names: Sequence[str],
    config: str,
    settings: Sequence[str] = (),
    most_bytes: int = 17 << 30,
) -> dict[str, Stage]:
    """Run components in order, except those that already have measurements in `folder`.

    Args:
        folder: The folder for the measurements (`stages.json`) and the logs (`COMPONENT.log`).
        names: The components.
        config: The configuration, as in the script's argument CONFIG.
        settings: Settings that override the configuration, as `KEY=VALUE`.
        most_bytes: Memory limit of the processes of a stage together; beyond it, they are killed.

    Returns:
        For each component: `import_cpu_s` and `import_mb` of the imports; `cpu_s` (including child
        processes) and `wall_s` of the component; `process_wall_s` and `process_cpu_s` of the whole
        process; `peak_mb`, the peak resident memory of all its processes together.

    Raises:
        OtherCodeError: If the folder contains measurements of different code or settings.
        TooMuchMemoryError: If a stage was killed because of `most_bytes`.
        CalledProcessError: If a stage failed; the reason is in its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "stages.json"
    done: dict[str, Stage] = json.loads(record.read_text()) if record.exists() else {}
    measured_here = {"code": application_hash(), "settings": list(settings)}
    if done.setdefault(_OF, measured_here) != measured_here:
        raise OtherCodeError(f"{record} has figures of other code or settings: use another folder")
    for name in names:
        if name in done:
            continue
        result = folder / f"{name}.json"
        command = [sys.executable, str(ROOT / "benchmarks" / "_growth_stages.py")]
        command += [str(result), "growth", name, config, *settings]
        print(f"{time.strftime('%H:%M:%S')} {name} …", file=sys.stderr, flush=True)
        measured = measure(command, folder / f"{name}.log", most_bytes)
        found = json.loads(result.read_text())
        # The polling may have missed the peak.
        measured["peak_mb"] = max(measured["peak_mb"], found.pop("own_peak_mb"))
        done[name] = {**found, **measured}
        record.write_text(json.dumps(done, indent=2))
        shown = ", ".join(
            f"{key} {value:.1f}" for key, value in done[name].items() if key != "state"
        )
        print(f"{time.strftime('%H:%M:%S')} {name}: {shown}", file=sys.stderr, flush=True)
    return {name: done[name] for name in names}


def measure(command: Sequence[str], log: Path, most_bytes: int = 17 << 30) -> dict[str, float]:
    """Run a command and measure its time and memory.

    Returns:
        `process_wall_s`, `process_cpu_s` and `peak_mb`, including child processes.

    Raises:
        TooMuchMemoryError: If it was killed because it used more than `most_bytes`.
        CalledProcessError: If it failed.
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
                    raise TooMuchMemoryError(f"{' '.join(command)} used {peak / 2**30:.1f} GiB")
                time.sleep(_POLL_S)
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
    """Return the resident memory of a process and its descendants in bytes."""
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


def cpu_s() -> float:
    """Return the CPU seconds of this process and of its finished child processes."""
    own, theirs = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime


def peak_mb() -> float:
    """Return the peak resident memory of this process in MiB.

    `ru_maxrss` is not used because it includes the memory of the parent at the fork.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def prepare(config: str, overrides: list[str], name: str, run_id: str) -> Any:
    """Import the modules that the component needs, and return a function that runs it."""
    if config.startswith(_STOCK):
        from benchmarks._stock_chain import stock_pipeline
        from pipeline.orchestrators.local.runner import run_component

        _, folder, csv = config.split(":", 2)
        pipeline = stock_pipeline(Path(folder), Path(csv))
        return lambda: run_component(pipeline, name, run_id)
    from pipeline.config.file import load
    from pipeline.runs.run import run_single_component

    loaded = load(config, overrides)
    return lambda: run_single_component(loaded, name, run_id)


def main() -> None:
    result, run_id, name, config, *overrides = sys.argv[1:]
    # The garbage collector ignores imported objects, as in `two-tower component`.
    gc.disable()
    run = prepare(config, overrides, name, run_id)
    gc.freeze()
    gc.enable()
    started, before, import_mb = time.monotonic(), cpu_s(), peak_mb()
    outcome = run()
    found = {
        "state": outcome.state,
        "import_cpu_s": before,
        "cpu_s": cpu_s() - before,
        "wall_s": time.monotonic() - started,
        "import_mb": import_mb,
        "own_peak_mb": peak_mb(),
    }
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
