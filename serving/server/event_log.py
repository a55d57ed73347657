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

TEXT, JSON = "text", "json"

_LOGGER = logging.getLogger("serving.server")
_FIELDS = "event_fields"


def configure(log_format: str = TEXT) -> None:
    """Write the events to stderr in the format `TEXT` or `JSON`; call this once, at start-up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == JSON else _TextFormatter())
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


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = getattr(record, _FIELDS, {})
        parts = [_time(record), record.levelname, record.getMessage()]
        return " ".join([*parts, *(f"{name}={_value(value)}" for name, value in fields.items())])


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = getattr(record, _FIELDS, {})
        line = {
            "time": _time(record),
            "severity": record.levelname,
            "event": record.getMessage(),
            **{
                name: value if isinstance(value, int | float | None) else str(value)
                for name, value in fields.items()
            },
        }
        return json.dumps(line, ensure_ascii=False)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    if not text or any(character in text for character in ' "=\n\r\t'):
        return json.dumps(text, ensure_ascii=False)
    return text
