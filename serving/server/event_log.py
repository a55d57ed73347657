"""The server's log, which has one line per event.

With `--log_format=text`:
`2026-01-31T12:00:00.000Z INFO version_available model=retrieval version=3`.
Empty values, and values with whitespace, quotes or `=`, are written as JSON strings, so that lines
can be parsed reliably.

With `--log_format=json`:
`{"time": "2026-01-31T12:00:00.000Z", "severity": "INFO", "event": "version_available", ...}`.
"""

from __future__ import annotations

import functools
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
    handler.setFormatter(_Formatter(log_format))
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False


def _log(level: int, event: str, **fields: object) -> None:
    _LOGGER.log(level, event, extra={_FIELDS: fields})


info = functools.partial(_log, logging.INFO)
warning = functools.partial(_log, logging.WARNING)
error = functools.partial(_log, logging.ERROR)


class _Formatter(logging.Formatter):
    def __init__(self, log_format: str) -> None:
        super().__init__()
        self._is_json = log_format == JSON

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        moment = f"{seconds}.{int(record.msecs):03d}Z"
        fields = getattr(record, _FIELDS, {})
        if self._is_json:
            line = {"time": moment, "severity": record.levelname, "event": record.msg, **fields}
            return json.dumps(line, ensure_ascii=False, default=str)
        pairs = (f"{name}={_text_value(value)}" for name, value in fields.items())
        return " ".join([moment, record.levelname, record.msg, *pairs])


def _text_value(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if not text or any(character in text for character in ' "=\n\r\t'):
        return json.dumps(text, ensure_ascii=False)
    return text
