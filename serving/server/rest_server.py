"""The REST front end on the standard library's HTTP server."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from email.errors import MissingHeaderBodySeparatorDefect
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serving.server import event_log
from serving.server.flags import AUTO_PORT
from serving.server.model_service import ModelService
from serving.server.rest_api import HttpAnswer, RestApi

MAX_BODY_BYTES = 2**31 - 1
_MAX_LENGTH_DIGITS = 18
_MAX_CHUNK_LINE_BYTES = 4096
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_IDLE_TIMEOUT_S = 300  # A client that is gone without a word must not hold a thread for ever.


class RestServer:
    """Listens from construction on; answers from `start` on.

    Each connection has a thread that reads and writes; models run in the batcher's few threads,
    the same that serve gRPC.

    Args:
        service: Answers the calls.
        bind_address: The address to listen on.
        port: The port, or `AUTO_PORT`.
        timeout_s: After this long a request is answered with 504.
        max_request_bytes: A longer body is answered with 413.
        metrics_path: Of the Prometheus page; None offers none.

    Raises:
        OSError: If the port is taken.
    """

    def __init__(
        self,
        service: ModelService,
        bind_address: str,
        port: int,
        *,
        timeout_s: float,
        max_request_bytes: int = MAX_BODY_BYTES,
        metrics_path: str | None = None,
    ) -> None:
        self.api = RestApi(service, timeout_s, metrics_path)
        self.max_request_bytes = max_request_bytes
        self._running = 0
        self._idle = threading.Condition()
        self.draining = False
        front_end = self

        class Handler(_Handler):
            rest = front_end

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in bind_address else socket.AF_INET
            daemon_threads = True
            # The default backlog of 5 drops connections of clients that start together.
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                event_log.warning("rest_connection_broken", client=client_address[0])

        try:
            self._server = Server((bind_address, 0 if port == AUTO_PORT else port), Handler)
        except OSError as error:
            raise OSError(
                f"cannot listen on {bind_address}:{port} for REST: {error.strerror}"
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )

    def start(self) -> None:
        """Start to answer."""
        self._thread.start()

    def stop(self, grace_s: float) -> None:
        """Refuse new connections and wait for the running requests.

        Args:
            grace_s: How long to wait at most.
        """
        self.draining = True
        self._server.shutdown()
        self._server.server_close()
        with self._idle:
            self._idle.wait_for(lambda: self._running == 0, grace_s)

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as running, so that `stop` waits for it."""
        with self._idle:
            self._running += 1
        try:
            yield
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()


class _BodyError(Exception):
    """The body cannot be read; the connection must end."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    rest: RestServer
    protocol_version = "HTTP/1.1"
    server_version = "two-tower-model-server"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1  # Headers and body leave in one packet.
    timeout = _IDLE_TIMEOUT_S

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

    def _answer(self) -> None:
        with self.rest.request():
            try:
                body = self._read_body()
            except _BodyError as error:
                self.close_connection = True  # What is left of the body is not read.
                self.send_error(error.status)
                return
            path = self.path.partition("?")[0]
            self._write(self.rest.api.answer(self.command, path, body))

    def _read_body(self) -> bytes:
        # Where a proxy may take the body's end to be elsewhere, what follows could be a request of
        # somebody else's: RFC 9112, 5.1 and 6.3.
        if any(isinstance(defect, MissingHeaderBodySeparatorDefect) for defect in self._defects()):
            raise _BodyError(400)
        encodings = self.headers.get_all("Transfer-Encoding", [])
        lengths = self.headers.get_all("Content-Length", [])
        if len(encodings) + len(lengths) > 1:
            raise _BodyError(400)
        if encodings:
            if encodings[0].strip().lower() != "chunked":
                raise _BodyError(501)
            return self._read_chunks()
        length = lengths[0].strip() if lengths else "0"
        if not (length.isascii() and length.isdecimal()):
            raise _BodyError(400)
        if len(length) > _MAX_LENGTH_DIGITS or int(length) > self.rest.max_request_bytes:
            raise _BodyError(413)
        return self.rfile.read(int(length))

    def _defects(self) -> list[Any]:
        # After a line that is no header, such as `Content-Length : 3`, the parser stops.
        return self.headers.defects

    def _read_chunks(self) -> bytes:
        chunks: list[bytes] = []
        total = 0
        while size := self._read_chunk_size():
            total += size
            if total > self.rest.max_request_bytes:
                raise _BodyError(413)
            chunks.append(self.rfile.read(size))
            if self.rfile.readline(64) != b"\r\n":
                raise _BodyError(400)
        while self.rfile.readline(65536).strip():  # Trailers.
            pass
        return b"".join(chunks)

    def _read_chunk_size(self) -> int:
        match = _CHUNK_SIZE.fullmatch(self.rfile.readline(_MAX_CHUNK_LINE_BYTES))
        if not match:
            raise _BodyError(400)
        return int(match[1], 16)

    def _write(self, answer: HttpAnswer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.rest.draining or answer.closes_connection:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing a request, as TensorFlow Serving."""
