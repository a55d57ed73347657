"""Keeps library chatter off the terminal: it goes to the run's log."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def quiet(log_path: Path) -> Iterator[TextIO]:
    """Sends standard output and error, of C++ code too, to a log file.

    Args:
        log_path: The file; its folder is made.

    Yields:
        The terminal's standard error.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with log_path.open("ab", buffering=0) as log, os.fdopen(os.dup(2), "w") as terminal:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        # One line for each type hint that Beam cannot express, thousands a run.
        logging.getLogger("apache_beam.typehints").setLevel(logging.WARNING)
        logging.captureWarnings(True)
        try:
            yield terminal
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, place in zip(saved, (1, 2), strict=True):
                os.dup2(descriptor, place)
                os.close(descriptor)
