"""Checks whether this machine can run the pipeline and serve its models."""

import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

DISTRIBUTION = "two-tower-retrieval"
SERVING_PORTS = {8500: "gRPC", 8501: "REST"}

_GB = 1e9
# Enough for a run on MovieLens 100K and its model server; larger datasets need more.
_MEMORY_NEEDED_GB, _MEMORY_COMFORTABLE_GB = 2.0, 6.0
_DISK_NEEDED_GB, _DISK_COMFORTABLE_GB = 1.0, 5.0

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


class Status(str, Enum):
    """The result of a check; only `FAILED` makes the command fail."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: Name of the checked item, such as `CPU` or a package.
        status: Whether the check passed.
        found: Description of the state that was found.
        advice: Suggested fix; empty if none is needed.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def examine(root: Path, environment: dict[str, str]) -> Iterator[Check]:
    """Run all checks, fastest first, and yield the outcome of each.

    Args:
        root: Folder that contains `data` and `runs`.
        environment: Environment variables for the process that imports TensorFlow.
    """
    yield check_python()
    yield from check_packages()
    yield check_cpu()
    yield check_memory()
    yield check_disk(Path.cwd())
    for port, protocol in SERVING_PORTS.items():
        yield check_port(port, protocol)
    for folder in ("data", "runs"):
        yield check_writable(root / folder)
    yield from check_tensorflow(environment)


def check_python() -> Check:
    """Check that Python is 3.10, the only version that all pinned packages support."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 10):
        return Check("Python", Status.OK, found)
    return Check(
        "Python",
        Status.FAILED,
        f"{found}, must be 3.10",
        "Run `make`, then `.venv/bin/two-tower`: it finds or installs Python 3.10.",
    )


def check_packages() -> Iterator[Check]:
    """Check that each package of the `pipeline` extra is installed at its pinned version.

    Yields:
        A failed check for each wrong package, or one passed check for all.
    """
    advice = "Run `make`: it installs exactly the packages of requirements.lock."
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("packages", Status.FAILED, f"{DISTRIBUTION} is not installed", advice)
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
            yield Check(name, Status.FAILED, f"{found}{must}", advice)
    if not wrong:
        yield Check("packages", Status.OK, f"all {pinned} pinned packages have the right version")


def check_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Check:
    """Check that the CPU has AVX2 and FMA, which ScaNN's wheel requires."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError as error:
        return Check("CPU", Status.WARNING, f"unknown: {error}", "ScaNN needs AVX2 and FMA.")
    missing = {"AVX2", "FMA"} - set(flags[1].upper().split() if flags else [])
    if not missing:
        return Check("CPU", Status.OK, "AVX2 and FMA")
    return Check(
        "CPU",
        Status.FAILED,
        f"without {' and '.join(sorted(missing))}",
        "ScaNN cannot run here: use another machine, or `index.backend: exact`. In a virtual "
        "machine, pass the host's CPU through.",
    )


def check_memory(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> Check:
    """Check the free memory: that of the machine, or of the container if it has less."""
    try:
        kilobytes = re.search(r"^MemAvailable:\s*(\d+)", meminfo.read_text("utf-8"), re.MULTILINE)
        free_gb = int(kilobytes[1]) * 1024 / _GB if kilobytes else float("inf")
    except OSError as error:
        return Check("memory", Status.WARNING, f"unknown: {error}")
    try:
        limit = int((cgroup / "memory.max").read_text("utf-8"))
        used = int((cgroup / "memory.current").read_text("utf-8"))
        free_gb = min(free_gb, (limit - used) / _GB)
    except (OSError, ValueError):
        pass  # No limit: the file does not exist or contains "max".
    return _enough(
        "memory", free_gb, _MEMORY_NEEDED_GB, _MEMORY_COMFORTABLE_GB, "Close other programs"
    )


def check_disk(folder: Path) -> Check:
    """Check the free space on the disk that contains `folder`."""
    free_gb = shutil.disk_usage(folder).free / _GB
    return _enough("disk", free_gb, _DISK_NEEDED_GB, _DISK_COMFORTABLE_GB, "Delete old runs")


def check_port(port: int, protocol: str) -> Check:
    """Check that a model server can listen on `port`."""
    name = f"port {port} ({protocol})"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # Servers set this option too: a port whose last connections are still closing is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            return Check(
                name,
                Status.WARNING,
                f"in use: {error.strerror}",
                "Another process listens there, perhaps a model server. Stop it, or use another "
                "port.",
            )
    return Check(name, Status.OK, "free")


def check_writable(folder: Path) -> Check:
    """Check that files can be created in `folder`, or in its nearest parent that exists."""
    name = f"{folder.name}/"
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return Check(name, Status.OK, f"{folder} can be written")
    except OSError as error:
        return Check(
            name,
            Status.FAILED,
            f"{existing} cannot be written: {error.strerror}",
            f"Run `chown -R {os.getuid()} {existing}` as root, or use another folder.",
        )


def check_tensorflow(environment: dict[str, str]) -> Iterator[Check]:
    """Check in a child process that TensorFlow uses Keras 2 and that ScaNN works with it."""
    together = "ScaNN with TensorFlow"
    advice = (
        "Run `make`: both must be the builds in requirements.lock. `index.backend: exact` works "
        "without ScaNN."
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TENSORFLOW_PROBE],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield Check(together, Status.FAILED, "did not load within 300 s", advice)
        return
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        found = (
            lines[-1] if lines and done.returncode > 0 else f"ended by signal {-done.returncode}"
        )
        yield Check(together, Status.FAILED, found[:200], advice)
        return
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    if answer["first"] == list(range(8)):
        yield Check(together, Status.OK, "loads and finds nearest neighbours")
    else:
        yield Check(
            together, Status.FAILED, f"finds {answer['first']}, but must find 0 to 7", advice
        )
    if answer["keras"] == "tf_keras":
        yield Check("Keras", Status.OK, "tf.keras is Keras 2 (tf-keras)")
    else:
        yield Check(
            "Keras",
            Status.FAILED,
            f"tf.keras is {answer['keras']}, must be tf_keras (Keras 2)",
            "Set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported, and run `make`.",
        )


def _enough(name: str, free_gb: float, needed: float, comfortable: float, advice: str) -> Check:
    found = f"{free_gb:.1f} GB free"
    if free_gb >= comfortable:
        return Check(name, Status.OK, found)
    status = Status.WARNING if free_gb >= needed else Status.FAILED
    what = f"at least {needed:g} GB, better {comfortable:g} GB"
    return Check(name, status, found, f"{advice}: MovieLens 100K needs {what}.")
