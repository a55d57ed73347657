"""Calls of the REST API, and the model's inputs as rows and columns."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

PREDICT = "/v1/models/retrieval:predict"


class Rest:
    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        status, _, content = self.ask_raw(method, path, body)
        return status, content.decode("utf-8", "surrogateescape")

    def ask_raw(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, bytes]:
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection(self._address, timeout=10)
        try:
            is_chunked = headers.get("Transfer-Encoding") == "chunked"
            connection.request(method, path, body, headers, encode_chunked=is_chunked)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()


def query(user_id: Any = "u1", **changes: Any) -> dict[str, Any]:
    full = {"user_id": user_id, "age": float("nan"), "country": "", "title": [], "history": []}
    return {**full, **changes}


def columns(*rows: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
