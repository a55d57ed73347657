"""The timer, service and cron examples, read by parsers of their formats."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
CRON = DEPLOY / "cron" / "two-tower.cron"


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


def check_command(command: str) -> None:
    """The command line is one that `two-tower` understands, up to reading its configuration."""
    from pipeline.cli.main import app

    words = shlex.split(command.replace("%i", "no_such_use").replace("clicks", "no_such_use"))
    assert words[0].endswith(".venv/bin/two-tower")
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 1, done.output  # 2 would be a wrong option


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_have_the_sections_of_their_kind(path: Path) -> None:
    content = unit(path)
    assert content["Unit"]["Description"]
    if path.suffix == ".timer":
        assert content["Timer"]["OnCalendar"]
        assert content["Timer"]["Persistent"] == "true"
        assert content["Install"]["WantedBy"] == "timers.target"
        assert path.with_suffix(".service") in UNITS
    else:
        assert content["Service"]["Type"] == "oneshot"
        check_command(content["Service"]["ExecStart"])


def test_nothing_new_is_no_failure_of_the_service() -> None:
    service = unit(DEPLOY / "systemd" / "two-tower@.service")["Service"]
    assert service["SuccessExitStatus"] == "4"


def test_every_command_waits_for_one_that_is_under_way() -> None:
    services = [unit(path)["Service"] for path in UNITS if path.suffix == ".service"]
    commands = [service["ExecStart"] for service in services] + [job[2] for job in cron_jobs()]
    assert all("--wait " in command for command in commands)
    # Of a oneshot unit it needs systemd 244, which Debian 10 has not.
    assert not any("Restart" in service for service in services)


def test_systemd_leaves_a_run_the_time_that_it_may_wait() -> None:
    service = unit(DEPLOY / "systemd" / "two-tower@.service")["Service"]
    (wait_s,) = re.findall(r"--wait (\d+)", service["ExecStart"])
    hours = int(service["TimeoutStartSec"].removesuffix("h"))
    assert hours * 3600 >= 2 * int(wait_s)


def test_cron_mails_only_what_went_wrong() -> None:
    assert all("--quiet" in command for _, _, command in cron_jobs())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_calendar_times() -> None:
    for path in UNITS:
        if path.suffix == ".timer":
            when = unit(path)["Timer"]["OnCalendar"]
            subprocess.run(["systemd-analyze", "calendar", when], check=True)


def cron_jobs() -> list[tuple[list[str], str, str]]:
    jobs = []
    for line in CRON.read_text().splitlines():
        if not line or line.startswith("#") or re.match(r"[A-Z]+=", line):
            continue
        *times, user, command = line.split(maxsplit=6)
        jobs.append((times, user, command))
    return jobs


def test_cron_lines_have_five_times_a_user_and_a_command() -> None:
    assert len(cron_jobs()) == 2
    for times, user, command in cron_jobs():
        for value, most in zip(times, (59, 23, 31, 12, 7), strict=True):
            assert value == "*" or int(value) <= most
        assert user == "two-tower"
        assert "%" not in command  # cron would end the command there
        subprocess.run(["bash", "-n", "-c", command], check=True)
        (called,) = re.findall(r"\.venv/bin/two-tower[^>;}]*", command)
        check_command(called)


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 1), (3, 3), (4, 0)])
def test_cron_takes_nothing_new_for_success(tmp_path: Path, code: int, expected: int) -> None:
    tool = tmp_path / ".venv" / "bin" / "two-tower"
    tool.parent.mkdir(parents=True)
    tool.write_text(f"#!/bin/sh\nexit {code}\n")
    tool.chmod(0o755)
    (_, _, command), _ = cron_jobs()
    command = command.replace("/opt/two-tower-retrieval", str(tmp_path))
    assert subprocess.run(["bash", "-c", command]).returncode == expected
