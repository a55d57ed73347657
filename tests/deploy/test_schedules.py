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


def commands() -> list[str]:
    services = [unit(path)["Service"] for path in UNITS if path.suffix == ".service"]
    jobs = re.findall(r"^[\d*].*? two-tower +(.*)$", CRON.read_text(), re.MULTILINE)
    return [
        *(service["ExecStart"] for service in services),
        *(re.sub(r"^cd \S+ && ", "", job) for job in jobs),
    ]


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


def test_cron_times_are_five_fields_within_their_ranges() -> None:
    jobs = re.findall(r"^([\d*].*?)  +two-tower ", CRON.read_text(), re.MULTILINE)
    assert len(jobs) == 2
    for fields in map(str.split, jobs):
        limits = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
        for field, (least, most) in zip(fields, limits, strict=True):
            assert field == "*" or least <= int(field) <= most


def test_timers_have_services_and_services_need_no_new_systemd() -> None:
    for path in UNITS:
        if path.suffix == ".timer":
            assert path.with_suffix(".service") in UNITS
        else:
            # `Restart=` in a oneshot unit needs systemd 244, which Debian 10 does not have.
            assert "Restart" not in unit(path)["Service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_calendar_times() -> None:
    for path in UNITS:
        if path.suffix == ".timer":
            when = unit(path)["Timer"]["OnCalendar"]
            subprocess.run(["systemd-analyze", "calendar", when], check=True)
