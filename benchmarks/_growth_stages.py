"""Run the components of a pipeline, each in a new process, and record their times and memory.

As a script it is the process of one component, and writes its figures to RESULT as JSON:

    python benchmarks/_growth_stages.py RESULT RUN_ID COMPONENT CONFIG [KEY=VALUE ...]

CONFIG may be `stock:FOLDER:CSV` for the chain that TFX offers.
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
    """A folder has the figures of other code or settings."""


def run_stages(
    folder: Path,
    names: Sequence[str],
    config: str,
    settings: Sequence[str] = (),
    most_bytes: int = 17 << 30,
) -> dict[str, Stage]:
    """Run components in order, except those with figures in the folder.

    Args:
        folder: The folder of the figures, `stages.json`, and the logs, `COMPONENT.log`.
        names: The components.
        config: The configuration, as the script takes it.
        settings: Settings that override it.
        most_bytes: A stage whose processes together use more memory is killed.

    Returns:
        For each component: `import_cpu_s` and `import_mb` of the imports; `cpu_s` (child processes
        included) and `wall_s` of the component; `process_wall_s` and `process_cpu_s` of the whole
        process; `peak_mb`, the peak resident memory of all its processes together.

    Raises:
        OtherCodeError: The folder has figures of other code or settings.
        TooMuchMemoryError: A stage was killed.
        CalledProcessError: A stage failed; its log says why.
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
        # The poll may have missed the peak.
        measured["peak_mb"] = max(measured["peak_mb"], found.pop("own_peak_mb"))
        done[name] = {**found, **measured}
        record.write_text(json.dumps(done, indent=2))
        shown = ", ".join(
            f"{key} {value:.1f}" for key, value in done[name].items() if key != "state"
        )
        print(f"{time.strftime('%H:%M:%S')} {name}: {shown}", file=sys.stderr, flush=True)
    return {name: done[name] for name in names}


def measure(command: Sequence[str], log: Path, most_bytes: int = 17 << 30) -> dict[str, float]:
    """Run a command to its end.

    Returns:
        `process_wall_s`, `process_cpu_s` with its child processes, and `peak_mb`.
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
    """Return the resident memory of a process and its descendants."""
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
    """Return the peak resident memory of this process.

    `ru_maxrss` would include the memory of the parent at the fork.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def prepare(config: str, overrides: list[str], name: str, run_id: str) -> Any:
    """Import what the component needs; return a function that runs it."""
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
    # As in `two-tower component`: the garbage collector ignores what was imported.
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
