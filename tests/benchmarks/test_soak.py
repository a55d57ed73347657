"""The soak test, for some seconds instead of ten minutes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_no_good_request_is_lost_while_the_server_reloads_and_is_killed() -> None:
    command = [sys.executable, "benchmarks/soak.py", "--minutes", "0.4", "--candidates", "500"]
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.stdout, done.stderr[-3000:]
    outcome = json.loads(done.stdout)
    values = {row["name"]: row["value"] for row in outcome["rows"]}
    # Memory is for the ten minutes to judge: in some seconds a heap has not settled.
    unmet = {
        row["name"]: row["value"]
        for row in outcome["rows"]
        if row["met"] is False and row["name"] != "memory_growth_over_reloads"
    }
    assert not unmet, outcome["wrong"]
    assert done.returncode == (0 if all(row["met"] is not False for row in outcome["rows"]) else 1)
    assert values["good_requests_answered"] > 200
    assert values["restarts_by_SIGKILL"] >= 1
    assert values["versions_pushed"] >= 3
    assert len(outcome["malformed"]) > 25
