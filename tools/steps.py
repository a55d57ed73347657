"""Run the steps of the set-up and say plainly what went wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

TAIL_LINES = 20


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


def run_step(
    command: Sequence[object],
    *,
    what: str,
    log: Path,
    env: dict[str, str] | None = None,
    keep_open: Sequence[int] = (),
) -> None:
    """Run a command, its output into a log.

    Args:
        command: the program and its arguments, strings or paths.
        what: the step in plain words, for the error.
        log: the file that its output is appended to.
        env: its environment; None for this process's own.
        keep_open: file descriptors that it inherits.

    Raises:
        SetupError: it ended with another status than 0 or could not be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        output.flush()
        start = output.tell()
        try:
            status = subprocess.call(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                pass_fds=tuple(keep_open),
            )
        except OSError as error:
            raise SetupError(f"{what} failed: {error}") from error
    if status:
        with log.open("rb") as output:
            output.seek(start)
            lines = output.read().decode("utf-8", "replace").strip().splitlines()
        shown = "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])
        raise SetupError(
            f"{what} failed with status {status}. The end of its output:\n{shown}\n"
            f"The whole output is in {log}.\n"
            "Check the network (UV_DEFAULT_INDEX names a mirror of the package index) and the\n"
            "free disk space, then run `make` again: what was downloaded is kept."
        )
