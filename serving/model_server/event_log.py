"""One line an event: `2026-01-31T12:00:00.000Z INFO version_available model=retrieval version=3`.

Values with blanks or quotes are written as JSON strings, so that a line never breaks and every
line splits the same way.
"""

from __future__ import annotations

import json
import logging
import sys
import time

_LOGGER = logging.getLogger("serving.model_server")


def configure() -> None:
    """Send the events to stderr; call once, at start-up."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s")
    formatter.datefmt = "%Y-%m-%dT%H:%M:%S"
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False


def info(event: str, **fields: object) -> None:
    """Log an event of normal operation."""
    _LOGGER.info(_line(event, fields))


def warning(event: str, **fields: object) -> None:
    """Log an event that somebody should look at while the server goes on."""
    _LOGGER.warning(_line(event, fields))


def error(event: str, **fields: object) -> None:
    """Log a failure."""
    _LOGGER.error(_line(event, fields))


def _line(event: str, fields: dict[str, object]) -> str:
    return " ".join([event, *(f"{name}={_value(value)}" for name, value in fields.items())])


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    if not text or any(character in text for character in ' "=\n\r\t'):
        return json.dumps(text, ensure_ascii=False)
    return text
