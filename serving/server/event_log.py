"""The server's log, which has one line per event.

With `--log_format=text`:
`2026-01-31T12:00:00.000Z INFO version_available model=retrieval version=3`.
Empty values, and values with whitespace, quotes or `=`, are written as JSON strings, so that lines
can be parsed reliably.

With `--log_format=json`:
`{"time": "2026-01-31T12:00:00.000Z", "severity": "INFO", "event": "version_available", ...}`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable

TEXT, JSON = "text", "json"

_LOGGER = logging.getLogger("serving.server")
_FIELDS = "event_fields"


def configure(log_format: str = TEXT) -> None:
    """Write the events to stderr in the format `TEXT` or `JSON`; call this once, at start-up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(_json_line if log_format == JSON else _text_line))
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False


def info(event: str, **fields: object) -> None:
    """Log an event of normal operation."""
    _LOGGER.info(event, extra={_FIELDS: fields})


def warning(event: str, **fields: object) -> None:
    """Log a problem that does not stop the server."""
    _LOGGER.warning(event, extra={_FIELDS: fields})


def error(event: str, **fields: object) -> None:
    """Log a failure."""
    _LOGGER.error(event, extra={_FIELDS: fields})


class _Formatter(logging.Formatter):
    def __init__(self, line: Callable[[str, str, str, dict[str, object]], str]) -> None:
        super().__init__()
        self._line = line

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        moment = f"{seconds}.{int(record.msecs):03d}Z"
        fields = getattr(record, _FIELDS, {})
        return self._line(moment, record.levelname, record.getMessage(), fields)


def _text_line(moment: str, severity: str, event: str, fields: dict[str, object]) -> str:
    pairs = (f"{name}={_text_value(value)}" for name, value in fields.items())
    return " ".join([moment, severity, event, *pairs])


def _text_value(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if not text or any(character in text for character in ' "=\n\r\t'):
        return json.dumps(text, ensure_ascii=False)
    return text


def _json_line(moment: str, severity: str, event: str, fields: dict[str, object]) -> str:
    line = {"time": moment, "severity": severity, "event": event, **fields}
    return json.dumps(line, ensure_ascii=False, default=str)
