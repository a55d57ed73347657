import importlib.metadata
import json
import os
import socket
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import pipeline.cli.doctor
from pipeline.cli.doctor import (
    Check,
    Status,
    check_cpu,
    check_memory,
    check_packages,
    check_port,
    check_python,
    check_tensorflow,
    check_writable,
    doctor,
)


def test_refuses_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_python().status == "ok"
    monkeypatch.setattr(sys, "version_info", (3, 11, 4))
    check = check_python()
    assert check.status == "failed"
    assert check.found == "3.11.4, must be 3.10"


def test_this_environment_has_the_pinned_packages() -> None:
    assert [check.status for check in check_packages()] == ["ok"]


def test_names_each_package_that_differs_or_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"scann": "1.4.2", "tensorflow": "2.16.2"}

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    pinned = [
        f'{name}; extra == "pipeline"' for name in ("scann==1.3.2", "tensorflow==2.16.2", "pip")
    ]
    others = ["protobuf>=3.20.3", 'mypy>=1.13; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: [*others, *pinned])
    monkeypatch.setattr(importlib.metadata, "version", version)
    checks = list(check_packages())
    assert [(check.name, check.found) for check in checks] == [
        ("scann", "1.4.2, must be 1.3.2"),
        ("pip", "not installed"),
    ]
    assert all(check.status == "failed" and "make" in check.advice for check in checks)


@pytest.mark.parametrize(
    ("flags", "status", "found"),
    [
        ("fpu avx avx2 fma", "ok", "AVX2 and FMA"),
        ("fpu avx fma", "failed", "without AVX2"),
        ("fpu fma4", "failed", "without AVX2 and FMA"),
    ],
)
def test_looks_for_avx2_and_fma(tmp_path: Path, flags: str, status: Status, found: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
    check = check_cpu(cpuinfo)
    assert (check.status, check.found) == (status, found)
    assert check_cpu(tmp_path / "none").status == "warning"


@pytest.mark.parametrize(
    ("gigabytes", "limit", "cached", "status"),
    [
        (16, "", 0, "ok"),
        (4, "", 0, "warning"),
        (1, "", 0, "failed"),
        (16, "3000000000", 0, "failed"),
        # The kernel frees the page cache if a process needs memory.
        (16, "3000000000", 2_000_000_000, "warning"),
        (16, "max", 0, "ok"),
    ],
)
def test_memory_is_that_of_the_machine_or_the_container(
    tmp_path: Path, gigabytes: float, limit: str, cached: int, status: Status
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 99 kB\nMemAvailable: {int(gigabytes * 1e9 / 1024)} kB\n")
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("2500000000\n")
    files = f"anon 7\nfile 9000000000\ninactive_file {cached}\nactive_file 1\n"
    (tmp_path / "memory.stat").write_text(files)
    assert check_memory(meminfo, tmp_path).status == status


def test_a_port_in_use_is_a_warning_and_a_free_one_is_not() -> None:
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert check_port(port, "gRPC").status == "warning"
    assert check_port(port, "gRPC").status == "ok"


def test_a_folder_that_can_be_made_is_writable_and_is_not_made(tmp_path: Path) -> None:
    assert check_writable(tmp_path / "a" / "data").status == "ok"
    assert list(tmp_path.iterdir()) == []
    check = check_writable(Path("/proc/data"))
    assert check.status == "failed"
    assert check.found.startswith("/proc cannot be written")


@pytest.mark.slow
def test_scann_and_keras_2_work_here() -> None:
    checks = list(check_tensorflow({**os.environ, "TF_USE_LEGACY_KERAS": "1"}))
    assert [check.status for check in checks] == ["ok", "ok"], checks


@pytest.mark.parametrize(
    ("probe", "found"),
    [
        ("raise ImportError('undefined symbol: _ZN')", "ImportError: undefined symbol: _ZN"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "ended by signal 4"),
    ],
)
def test_says_how_scann_or_keras_fails(
    monkeypatch: pytest.MonkeyPatch, probe: str, found: str
) -> None:
    monkeypatch.setattr(pipeline.cli.doctor, "_TENSORFLOW_PROBE", probe)
    (check,) = check_tensorflow({})
    assert (check.status, check.found) == ("failed", found)
    keras_3 = """print('{"keras": "keras", "first": [0, 1, 2, 3, 4, 5, 6, 7]}')"""
    monkeypatch.setattr(pipeline.cli.doctor, "_TENSORFLOW_PROBE", keras_3)
    scann, keras = check_tensorflow({})
    assert (scann.status, keras.status) == ("ok", "failed")
    assert "TF_USE_LEGACY_KERAS=1" in keras.advice


APP = typer.Typer()
APP.command()(doctor)


@pytest.mark.parametrize(("status", "exit_code"), [("ok", 0), ("warning", 0), ("failed", 1)])
def test_only_a_failure_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, status: Status, exit_code: int
) -> None:
    check = Check("disk", status, "[1.0] GB free", "Free some space")
    monkeypatch.setattr(pipeline.cli.doctor, "examine", lambda *_: iter([check]))
    result = CliRunner().invoke(APP, [])
    assert result.exit_code == exit_code
    assert "[1.0] GB free" in result.output
    as_json = CliRunner().invoke(APP, ["--json"])
    assert as_json.exit_code == exit_code
    shown = json.loads(as_json.stdout)
    assert shown["healthy"] is (status != "failed")
    assert shown["checks"][0]["status"] == status
