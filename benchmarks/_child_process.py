"""A measurement in a process of its own, so that none finds what another left in memory."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def in_child(script: str, *arguments: object) -> dict[str, float]:
    """Runs a benchmark's hidden `--measure`; returns what its last line holds as JSON."""
    done = subprocess.run(
        [sys.executable, script, "--measure", *map(str, arguments)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
