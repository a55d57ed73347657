"""The systemd units and the crontab: their commands are valid, and systemd accepts their times."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.pipeline.two_clubs import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").iterdir())
CRON = ROOT / "deploy" / "cron" / "two-tower.cron"


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


def cron_jobs() -> list[tuple[list[str], str, str]]:
    """Return the five times, the user and the command of each line."""
    jobs = []
    for line in CRON.read_text().splitlines():
        if line and not line.startswith("#") and not re.match(r"[A-Z]+=", line):
            *times, user, command = line.split(maxsplit=6)
            jobs.append((times, user, command))
    return jobs


def commands() -> list[str]:
    services = [unit(path)["Service"] for path in UNITS if path.suffix == ".service"]
    jobs = [re.sub(r"^cd \S+ && ", "", command) for _, _, command in cron_jobs()]
    return [*(service["ExecStart"] for service in services), *jobs]


@pytest.mark.parametrize("command", commands())
def test_commands_are_valid_up_to_reading_their_configuration(command: str) -> None:
    from pipeline.cli.main import app

    words = shlex.split(
        command.replace("%i", "no_such_project").replace("clicks", "no_such_project")
    )
    assert words[0].endswith(".venv/bin/two-tower")
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 1, done.output  # an invalid option would give 2
    assert "--wait" in words  # for a run or a clean in progress


def test_timers_have_services_and_services_need_no_new_systemd() -> None:
    for path in UNITS:
        if path.suffix == ".timer":
            assert path.with_suffix(".service") in UNITS
        else:
            # `Restart=` in a oneshot unit needs systemd 244, which Debian 10 does not have.
            assert "Restart" not in unit(path)["Service"]


def test_systemd_gives_a_run_more_time_than_it_may_wait() -> None:
    service = unit(ROOT / "deploy" / "systemd" / "two-tower@.service")["Service"]
    (wait_s,) = re.findall(r"--wait (\d+)", service["ExecStart"])
    hours = int(service["TimeoutStartSec"].removesuffix("h"))
    assert hours * 3600 >= 2 * int(wait_s)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_calendar_times() -> None:
    for path in UNITS:
        if path.suffix == ".timer":
            when = unit(path)["Timer"]["OnCalendar"]
            subprocess.run(["systemd-analyze", "calendar", when], check=True)


def test_cron_only_mails_failures_and_never_cuts_a_command() -> None:
    for times, user, command in cron_jobs():
        assert len(times) == 5
        assert user == "two-tower"
        assert "--quiet" in command
        assert "%" not in command  # cron ends a command there
