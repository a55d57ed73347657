"""Run pipelines, components and servers in new processes, and measure their time and memory."""

import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
TWO_TOWER = "from pipeline.cli.main import main; main()"
_REFUSED = 3
_START_TIMEOUT_S = 120.0

Measured = dict[str, Any]


def run_pipeline(
    config: str, runs: str | Path, *settings: str, fresh: bool = True, program: str = TWO_TOWER
) -> dict[str, Any]:
    """Run a pipeline and return its summary, even if a gate refuses the model.

    Args:
        config: The configuration.
        runs: Folder for the output.
        settings: Settings that override the configuration, as `KEY=VALUE`.
        fresh: Whether to ignore cached results.
        program: Python code that starts the `two-tower` command.
    """
    command = [sys.executable, "-c", program, "run", "--config", config, "--push", "--json"]
    command += ["--fresh"] if fresh else []
    for setting in (f"runs={runs}", *settings):
        command += ["--set", setting]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, _REFUSED):
        sys.exit(f"the run of {config} failed:\n{done.stderr}")
    if done.returncode == _REFUSED:
        print(f"the model of {config} was refused:\n{done.stderr[-2000:]}", file=sys.stderr)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def measure(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Measured:
    """Run a command with additional environment variables, and measure its time and memory.

    Returns:
        `process_wall_s`, `process_cpu_s` and `peak_mb` (resident), including child processes; and
        `anonymous_mb`, the peak of the anonymous memory of the process itself.
    """
    cpu_before_s, started = _cpu_s(resource.RUSAGE_CHILDREN), time.monotonic()
    peak_mb = anonymous_mb = 0.0
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT
        )
        while process.returncode is None:
            try:
                process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                peak_mb = max(peak_mb, _resident_mb(process.pid))
                anonymous_mb = max(anonymous_mb, _status_mb("RssAnon", process.pid))
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-4000:]}")
    return {
        "process_wall_s": time.monotonic() - started,
        "process_cpu_s": _cpu_s(resource.RUSAGE_CHILDREN) - cpu_before_s,
        "peak_mb": peak_mb,
        "anonymous_mb": anonymous_mb,
    }


def measure_call(prepare: str, *arguments: str, log: Path) -> Measured:
    """Measure a function in a new process, without its imports.

    Args:
        prepare: `MODULE:NAME` of a function that makes the imports and returns the function to
            measure.
        arguments: Arguments of `prepare`.
        log: File for the output of the process.

    Returns:
        The figures of `measure`; `cpu_s` (with child processes) and `wall_s` of the function;
        `import_cpu_s` and `import_mb` of the imports; `above_imports_mb`, the peak minus
        `import_mb`; `growth_mb`, the growth of the anonymous memory after the imports; and what the
        function returned, as `returned`.
    """
    print(f"{time.strftime('%H:%M:%S')} {prepare} {arguments[0]}", file=sys.stderr, flush=True)
    result = log.with_suffix(".json")
    program = "from benchmarks._processes import measure_here; measure_here()"
    figures = measure([sys.executable, "-c", program, str(result), prepare, *arguments], {}, log)
    own = json.loads(result.read_text())
    growth_mb = figures["anonymous_mb"] - own.pop("import_anonymous_mb")
    peak_mb = max(figures["peak_mb"], own.pop("own_peak_mb"))  # the polling may have missed it
    above_imports_mb = peak_mb - own["import_mb"]
    more = {"peak_mb": peak_mb, "above_imports_mb": above_imports_mb, "growth_mb": growth_mb}
    return {**own, **figures, **more}


def measure_here() -> None:
    """Measure a function in this process, which `measure_call` started."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    result, prepare, *arguments = sys.argv[1:]
    module, _, name = prepare.partition(":")
    # The garbage collector ignores imported objects, as in `two-tower component`.
    gc.disable()
    function: Callable[[], Any] = getattr(importlib.import_module(module), name)(*arguments)
    gc.freeze()
    gc.enable()
    # `ru_maxrss` is not used because it includes the memory of the parent at the fork.
    figures = {
        "import_cpu_s": _own_cpu_s(),
        "import_mb": _status_mb("VmHWM"),
        "import_anonymous_mb": _status_mb("RssAnon"),
    }
    started = time.monotonic()
    returned = function()
    figures |= {
        "wall_s": time.monotonic() - started,
        "cpu_s": _own_cpu_s() - figures["import_cpu_s"],
        "own_peak_mb": _status_mb("VmHWM"),
        "returned": returned,
    }
    Path(result).write_text(json.dumps(figures), encoding="utf-8")


def measure_components(
    folder: Path, names: Sequence[str], config: Path, *settings: str
) -> dict[str, Measured]:
    """Measure components in order, each in a new process (see `measure_call`).

    Args:
        folder: Folder for the logs.
        names: The components.
        config: Configuration of a project; or a CSV file, for TFX's own components.
        settings: Settings that override the configuration, as `KEY=VALUE`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    is_stock = config.suffix == ".csv"
    prepare = "benchmarks.growth:stock_component" if is_stock else f"{__name__}:component"
    return {
        name: measure_call(prepare, name, str(config), *settings, log=folder / f"{name}.log")
        for name in names
    }


def component(name: str, config: str, *settings: str) -> Callable[[], None]:
    """Return a function that runs a component of a project."""
    from pipeline.config.file import load
    from pipeline.runs.run import run_single_component

    loaded = load(config, settings)

    def run() -> None:
        run_single_component(loaded, name, "growth")

    return run


def start_server(
    base_path: Path, log: Path, *flags: str, checkout: Path = ROOT
) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
    """Start the model server of a checkout; return its process and ports when it has a version."""
    package = "serving.server" if (checkout / "serving/server").exists() else "serving.model_server"
    python = checkout / ".venv/bin/python" if checkout != ROOT else sys.executable
    ready = log.with_suffix(".ready")
    ready.unlink(missing_ok=True)
    command = [python, "-m", package, "--model_name=retrieval", f"--model_base_path={base_path}"]
    command += [f"--ready_file={ready}", f"--parent_pid={os.getpid()}", *flags]
    variables = {**os.environ, "PYTHONPATH": str(checkout), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=checkout, env=variables, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the server of {checkout} did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.05)
    told = json.loads(ready.read_text())
    return process, {name: told[name] for name in ("grpc_port", "rest_port")}


def _cpu_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _own_cpu_s() -> float:
    """Return the CPU seconds of this process and of its finished child processes."""
    return _cpu_s(resource.RUSAGE_SELF) + _cpu_s(resource.RUSAGE_CHILDREN)


def _status_mb(field: str, pid: int | str = "self") -> float:
    """Return a memory size of a process in MiB; 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def _resident_mb(pid: int) -> float:
    """Return the resident memory of a process and its descendants in MiB."""
    try:
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(_status_mb("VmRSS", process.pid) for process in processes)
