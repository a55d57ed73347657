"""The part of Kubeflow Pipelines' HTTP API that `two-tower submit` calls, with recording.

Paths and bodies: backend/api/v2beta1 in kubeflow/pipelines.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.builders import http_server

PREFIX = "/apis/v2beta1"


@dataclass
class RecordingApi:
    """The recorded calls and the state of the server.

    Attributes:
        calls: Method, path below the API, and body or query of each call.
        authorizations: Authorization header of each call.
        refusal: Status with which the server refuses to create runs, if any.
    """

    url: str = ""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    recurring_runs: list[dict[str, Any]] = field(default_factory=list)
    refusal: int | None = None

    def bodies(self, method: str, path: str) -> list[Any]:
        return [body for called, at, body in self.calls if (called, at) == (method, path)]

    def answer(self, method: str, path: str, given: Any) -> tuple[int, Any]:
        if path == "/healthz":
            return 200, {"multi_user": False}
        if path == "/experiments":
            if method == "GET":
                return 200, {"experiments": self.experiments}
            self.experiments.append({**given, "experiment_id": "experiment-1"})
            return 200, self.experiments[-1]
        if method == "POST" and self.refusal is not None:
            return self.refusal, {"error": "no quota", "code": 8}
        if path == "/runs":
            return 200, {**given, "run_id": "run-1"}
        if path == "/recurringruns":
            if method == "GET":
                [predicate] = json.loads(given["filter"][0])["predicates"]
                same = [
                    run
                    for run in self.recurring_runs
                    if run["display_name"] == predicate.get("stringValue")
                ]
                return 200, {"recurringRuns": same}
            identity = f"recurring-{len(self.calls)}"
            self.recurring_runs.append({**given, "recurring_run_id": identity})
            return 200, self.recurring_runs[-1]
        if method == "DELETE" and path.startswith("/recurringruns/"):
            identity = path.rsplit("/", 1)[1]
            self.recurring_runs = [
                run for run in self.recurring_runs if run["recurring_run_id"] != identity
            ]
            return 200, {}
        return 404, {"error": f"nothing at {path}"}


@contextmanager
def recording_api() -> Iterator[RecordingApi]:
    """Serve the API on a free port."""
    api = RecordingApi()

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            parts = urlsplit(self.path)
            path = parts.path.removeprefix(PREFIX)
            size = int(self.headers.get("Content-Length") or 0)
            given = json.loads(self.rfile.read(size)) if size else parse_qs(parts.query)
            api.calls.append((self.command, path, given))
            api.authorizations.append(self.headers.get("authorization"))
            status, content = api.answer(self.command, path, given)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    with http_server(Handler) as port:
        api.url = f"http://127.0.0.1:{port}"
        yield api
