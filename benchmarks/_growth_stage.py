"""Runs one component of a pipeline in this process and tells what it took, for `growth.py`.

Usage: python benchmarks/_growth_stage.py RESULT RUN_ID COMPONENT CONFIG [KEY=VALUE ...]

RESULT gets a JSON object. CONFIG may be `stock:FOLDER:CSV` for the chain that stock TFX offers.
"""

import gc
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

STOCK = "stock:"


def cpu_s() -> float:
    """Returns the CPU seconds of this process and of those that it has started and waited for."""
    own, theirs = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime


def peak_mb() -> float:
    """Returns the most resident memory that this process has held so far.

    `ru_maxrss` would begin with that of the process that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def prepare(config: str, overrides: list[str], name: str, run_id: str) -> Any:
    """Imports what the component needs; returns what runs it."""
    if config.startswith(STOCK):
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
    # As `two-tower component` does: what is imported stays, and is not looked through again.
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
