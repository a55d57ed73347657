"""`two-tower doctor`: check that this machine can run the pipeline and serve its models."""

import contextlib
import importlib.metadata
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer

from pipeline.cli.command import command
from pipeline.cli.data import default_data_dir
from pipeline.cli.output import new_table, print_json, print_table, say

Status = Literal["ok", "warning", "failed"]
_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[bold red]failed[/]"}

_DISTRIBUTION = "two-tower-retrieval"
_PORTS = {8500: "gRPC", 8501: "REST"}

_GB = 1e9
# Needed and comfortable for MovieLens 100K and its model server; larger datasets need more.
_MEMORY_GB = (2.0, 6.0)
_DISK_GB = (1.0, 5.0)

# The probe runs in a child process, because a ScaNN built for another TensorFlow or CPU can crash
# the process that imports it. TensorFlow's memory is free again when the child exits.
_TENSORFLOW_PROBE = """\
import json, numpy, tensorflow, scann
rows = numpy.eye(8, dtype=numpy.float32)
searcher = scann.scann_ops.builder(rows, 3, "dot_product").score_brute_force().build()
ids, _ = searcher.search_batched(rows)
keras = tensorflow.keras.layers.Layer.__module__.split(".")[0]
print(json.dumps({"keras": keras, "first": ids.numpy()[:, 0].tolist()}))
"""


@dataclass(frozen=True)
class Check:
    """The outcome of one check; only the status `failed` makes the command fail."""

    name: str
    status: Status
    found: str
    advice: str = ""


@command
def doctor(as_json: bool = False) -> None:
    """Check Python, packages, CPU, memory, disk, ports and folders, and suggest fixes.

    The exit code is 1 if a check fails, and 0 with warnings only.

    Example: two-tower doctor
    """
    import models  # noqa: F401 - sets TF_USE_LEGACY_KERAS, which the checks pass on

    checks = list(examine(default_data_dir().parent, dict(os.environ)))
    failures = sum(check.status == "failed" for check in checks)
    if as_json:
        print_json({"healthy": not failures, "checks": checks})
    else:
        from rich.markup import escape

        table = new_table("check", "", "found", "what to do")
        for check in checks:
            cells = map(escape, (check.found, check.advice))
            table.add_row(escape(check.name), _MARKS[check.status], *cells)
        print_table(table)
        warnings = sum(check.status == "warning" for check in checks)
        say(f"\n{len(checks)} checks: {failures} failed, {warnings} with a warning")
    if failures:
        raise typer.Exit(1)


def examine(root: Path, environment: dict[str, str]) -> Iterator[Check]:
    """Run all checks, fastest first, and yield the outcome of each."""
    yield check_python()
    yield from check_packages()
    yield check_cpu()
    yield check_memory()
    yield _enough("disk", shutil.disk_usage(Path.cwd()).free / _GB, _DISK_GB, "Delete old runs")
    yield from (check_port(*port) for port in _PORTS.items())
    yield from (check_writable(root / folder) for folder in ("data", "runs"))
    yield from check_tensorflow(environment)


def check_python() -> Check:
    """Check that Python is 3.10, the only version that all pinned packages support."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 10):
        return Check("Python", "ok", found)
    advice = "Run `make`, then `.venv/bin/two-tower`: it finds or installs Python 3.10."
    return Check("Python", "failed", f"{found}, must be 3.10", advice)


def check_packages() -> Iterator[Check]:
    """Yield a failed check for each package of the `pipeline` extra that differs from its pin.

    If all packages have the right version, yield one passed check.
    """
    advice = "Run `make`: it installs exactly the packages of requirements.lock."
    try:
        requirements = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("packages", "failed", f"{_DISTRIBUTION} is not installed", advice)
        return
    wrong, pinned = 0, 0
    for requirement in requirements:
        match = re.match(r"([A-Za-z0-9._-]+)\s*(?:==\s*([^;,\s]+))?", requirement)
        if match is None or 'extra == "pipeline"' not in requirement:
            continue
        name, pin = match.groups()
        pinned += pin is not None
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
        if found == "not installed" or pin not in (None, found):
            wrong += 1
            must = f", must be {pin}" if pin else ""
            yield Check(name, "failed", f"{found}{must}", advice)
    if not wrong:
        yield Check("packages", "ok", f"all {pinned} pinned packages have the right version")


def check_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Check:
    """Check that the CPU has AVX2 and FMA, which ScaNN's wheel requires."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError as error:
        return Check("CPU", "warning", f"unknown: {error}", "ScaNN needs AVX2 and FMA.")
    missing = {"AVX2", "FMA"} - set(flags[1].upper().split() if flags else [])
    if not missing:
        return Check("CPU", "ok", "AVX2 and FMA")
    advice = (
        "ScaNN cannot run here: use another machine, or `index.backend: exact`. In a virtual "
        "machine, pass the host's CPU through."
    )
    return Check("CPU", "failed", f"without {' and '.join(sorted(missing))}", advice)


def check_memory(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> Check:
    """Check the available memory: that of the machine, or of the container if it has less."""
    try:
        kilobytes = re.search(r"^MemAvailable:\s*(\d+)", meminfo.read_text("utf-8"), re.MULTILINE)
    except OSError as error:
        return Check("memory", "warning", f"unknown: {error}")
    free_gb = int(kilobytes[1]) * 1024 / _GB if kilobytes else math.inf
    with contextlib.suppress(OSError, ValueError):  # No limit: no file, or it contains "max".
        limit = int((cgroup / "memory.max").read_text("utf-8"))
        used = int((cgroup / "memory.current").read_text("utf-8"))
        stat = (cgroup / "memory.stat").read_text("utf-8")
        # The kernel frees the page cache when a process needs memory.
        cached = sum(map(int, re.findall(r"^(?:in)?active_file (\d+)$", stat, re.MULTILINE)))
        free_gb = min(free_gb, (limit - used + cached) / _GB)
    return _enough("memory", free_gb, _MEMORY_GB, "Close other programs")


def check_port(port: int, protocol: str) -> Check:
    """Check that a model server can listen on `port`."""
    name = f"port {port} ({protocol})"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # Servers set this option too: a port whose last connections are still closing is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            advice = (
                "Another process listens there, perhaps a model server. Stop it, or use another "
                "port."
            )
            return Check(name, "warning", f"in use: {error.strerror}", advice)
    return Check(name, "ok", "free")


def check_writable(folder: Path) -> Check:
    """Check that files can be created in `folder`, or in its nearest parent that exists."""
    name = f"{folder.name}/"
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return Check(name, "ok", f"{folder} can be written")
    except OSError as error:
        advice = f"Run `chown -R {os.getuid()} {existing}` as root, or use another folder."
        return Check(name, "failed", f"{existing} cannot be written: {error.strerror}", advice)


def check_tensorflow(environment: dict[str, str]) -> Iterator[Check]:
    """Check in a child process that TensorFlow uses Keras 2 and that ScaNN works with it."""
    together = "ScaNN with TensorFlow"
    advice = (
        "Run `make`: both must be the builds in requirements.lock. `index.backend: exact` works "
        "without ScaNN."
    )
    command = [sys.executable, "-c", _TENSORFLOW_PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    except subprocess.TimeoutExpired:
        yield Check(together, "failed", "did not load within 300 s", advice)
        return
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        by_signal = not lines or done.returncode < 0
        found = f"ended by signal {-done.returncode}" if by_signal else lines[-1]
        yield Check(together, "failed", found[:200], advice)
        return
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    if answer["first"] == list(range(8)):
        yield Check(together, "ok", "loads and finds nearest neighbours")
    else:
        found = f"finds {answer['first']}, but must find 0 to 7"
        yield Check(together, "failed", found, advice)
    if answer["keras"] == "tf_keras":
        yield Check("Keras", "ok", "tf.keras is Keras 2 (tf-keras)")
    else:
        found = f"tf.keras is {answer['keras']}, must be tf_keras (Keras 2)"
        advice = "Set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported, and run `make`."
        yield Check("Keras", "failed", found, advice)


def _enough(name: str, free_gb: float, levels: tuple[float, float], advice: str) -> Check:
    needed, comfortable = levels
    found = f"{free_gb:.1f} GB free"
    if free_gb >= comfortable:
        return Check(name, "ok", found)
    status: Status = "warning" if free_gb >= needed else "failed"
    what = f"at least {needed:g} GB, better {comfortable:g} GB"
    return Check(name, status, found, f"{advice}: MovieLens 100K needs {what}.")
