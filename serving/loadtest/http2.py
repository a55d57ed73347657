"""A small gRPC client for load tests: unary calls with serialized messages over HTTP/2 (RFC 9113).

On a machine with few CPUs, grpcio's client would dominate the results of a load test. This client
encodes no messages, decodes only the headers of failed calls, and takes about half the CPU time
per call.
"""

from __future__ import annotations

import asyncio
import dataclasses
import struct
from collections import deque
from typing import cast
from urllib.parse import unquote

from serving.clients.tls import TlsOptions
from serving.errors import (
    CancelledError,
    DeadlineExceededError,
    InternalError,
    ResourceExhaustedError,
    ServingError,
    UnavailableError,
    UnknownError,
    from_grpc_code,
)

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _MAX_STREAMS, _WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 3, 4, 5
_LARGEST_WINDOW = 2**31 - 1
_DEFAULT_WINDOW = 65_535
_RENEW_WINDOW_AFTER = 2**30
_REFUSED, _CANCEL = 7, 8
_RESET_ERRORS: dict[int, type[ServingError]] = {
    _CANCEL: CancelledError,
    11: ResourceExhaustedError,  # ENHANCE_YOUR_CALM: the server asks for less load
}


class Channel:
    """A connection for calls of one method. It reconnects at the next call after a failure.

    Args:
        host: The server's host.
        port: The server's port.
        path: The gRPC path of the method.
        tls: TLS options; None for an unencrypted connection.
    """

    def __init__(self, host: str, port: int, path: str, tls: TlsOptions | None = None) -> None:
        self._host, self._port, self._path = host, port, path
        self._ssl = None if tls is None else tls.ssl_context()
        self._server_name = None if tls is None else tls.server_name or host
        if self._ssl is not None:
            self._ssl.set_alpn_protocols(["h2"])
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def call(self, message: bytes, timeout_s: float) -> None:
        """Send a serialized request, wait for the response, and discard it.

        Raises:
            ServingError: If the call fails or takes longer than `timeout_s`.
        """
        connection = self._usable_connection()
        if connection is None:
            async with self._connecting:  # one call connects, the others wait for it
                connection = self._usable_connection() or await self._connect(timeout_s)
        await connection.call(message, timeout_s)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def _usable_connection(self) -> _Connection | None:
        connection = self._connection
        return None if connection is None or connection.closed else connection

    async def _connect(self, timeout_s: float) -> _Connection:
        headers = _request_headers(f"{self._host}:{self._port}", self._path)
        scheme = b"\x86" if self._ssl is None else b"\x87"  # in the static table
        making = asyncio.get_running_loop().create_connection(
            lambda: _Connection(scheme + headers),
            self._host,
            self._port,
            ssl=self._ssl,
            server_hostname=self._server_name,
        )
        try:
            _, connection = await asyncio.wait_for(making, timeout_s)
        except (OSError, asyncio.TimeoutError) as error:
            where = f"{self._host}:{self._port}"
            raise UnavailableError(f"Cannot connect to {where}: {error}") from error
        self._connection = connection
        return connection


@dataclasses.dataclass(eq=False)
class _Call:
    message: bytes
    timeout_s: float
    answer: asyncio.Future[None]
    stream: int = 0
    window: int = 0
    rest: bytes = b""
    received: int = 0
    headers: bytes = b""
    has_ended: bool = False


class _Connection(asyncio.Protocol):
    """An HTTP/2 connection with any number of concurrent calls."""

    def __init__(self, headers: bytes) -> None:
        self.closed = False
        self._headers = headers
        self._buffer = bytearray()
        self._calls: dict[int, _Call] = {}
        self._waiting: deque[_Call] = deque()  # calls that wait for a free stream
        self._sending: deque[_Call] = deque()  # calls with unsent data
        self._next_stream = 1
        self._max_streams = 2**31
        self._max_frame = 16_384
        self._window = self._stream_window = _DEFAULT_WINDOW
        self._unacknowledged = 0

    async def call(self, message: bytes, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        # A gRPC message has a prefix of five bytes: the compression flag and the length.
        prefixed = struct.pack("!BI", 0, len(message)) + message
        call = _Call(prefixed, timeout_s, loop.create_future())
        timer = loop.call_later(timeout_s, self._time_out, call)
        self._waiting.append(call)
        self._flush()
        try:
            await call.answer
        finally:
            timer.cancel()

    def close(self) -> None:
        self.closed = True
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # A header table of size 0 lets each header block be decoded, or ignored, independently.
        settings = struct.pack("!HIHI", _HEADER_TABLE_SIZE, 0, _WINDOW_SIZE, _LARGEST_WINDOW)
        window = struct.pack("!I", _LARGEST_WINDOW - _DEFAULT_WINDOW)
        self._transport.write(
            _PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, window)
        )

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        failure = UnavailableError(f"The connection was lost: {error or 'closed by the server'}")
        for call in [*self._calls.values(), *self._waiting]:
            self._finish(call, failure)

    def data_received(self, data: bytes) -> None:
        buffer, start = self._buffer, 0
        buffer += data
        while len(buffer) - start >= 9:
            end = start + 9 + int.from_bytes(buffer[start : start + 3], "big")
            if end > len(buffer):
                break
            stream = int.from_bytes(buffer[start + 5 : start + 9], "big") & _LARGEST_WINDOW
            payload = bytes(buffer[start + 9 : end])
            self._receive(buffer[start + 3], buffer[start + 4], stream, payload)
            start = end
        del buffer[:start]

    def _receive(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        call = self._calls.get(stream)
        if kind in (_DATA, _HEADERS, _CONTINUATION):
            self._receive_part(kind, flags, payload, call)
        elif kind == _RST_STREAM and call is not None:
            self._receive_reset(int.from_bytes(payload, "big"), call)
        elif kind == _SETTINGS and not flags & _ACK:
            self._apply(dict(struct.iter_unpack("!HI", payload)))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            self.closed = True  # so new calls use a new connection
            last = int.from_bytes(payload[:4], "big")
            for later in [*(c for s, c in self._calls.items() if s > last), *self._waiting]:
                self._finish(later, UnavailableError("The server is going away"))
        elif kind == _WINDOW_UPDATE:
            increment = int.from_bytes(payload, "big")
            if stream == 0:
                self._window += increment
            elif call is not None:
                call.window += increment
            self._flush()

    def _receive_part(self, kind: int, flags: int, payload: bytes, call: _Call | None) -> None:
        if kind == _DATA:
            self._unacknowledged += len(payload)
            if self._unacknowledged > _RENEW_WINDOW_AFTER:
                increment = struct.pack("!I", self._unacknowledged)
                self._transport.write(_frame(_WINDOW_UPDATE, 0, 0, increment))
                self._unacknowledged = 0
        if call is None:  # the call timed out
            return
        if kind == _DATA:
            call.received += len(payload)
        elif kind == _HEADERS:
            call.headers = _without_padding(flags, payload)
        else:
            call.headers += payload
        call.has_ended |= kind != _CONTINUATION and bool(flags & _END_STREAM)
        if call.has_ended and (kind == _DATA or flags & _END_HEADERS):
            # Only a failed call has no message, so only its headers are decoded.
            self._finish(call, None if call.received > 5 else _read_error(call.headers))

    def _receive_reset(self, code: int, call: _Call) -> None:
        if code == _REFUSED:  # the server did not process the call, so it is safe to repeat
            del self._calls[call.stream]
            self._waiting.append(call)
            self._flush()
            return
        error = _RESET_ERRORS.get(code, InternalError)
        self._finish(call, error(f"The server reset the stream with HTTP/2 error {code}"))

    def _apply(self, settings: dict[int, int]) -> None:
        self._max_streams = settings.get(_MAX_STREAMS, self._max_streams)
        self._max_frame = settings.get(_MAX_FRAME_SIZE, self._max_frame)
        change = settings.get(_WINDOW_SIZE, self._stream_window) - self._stream_window
        self._stream_window += change
        for call in self._calls.values():
            call.window += change
        self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        self._flush()

    def _flush(self) -> None:
        """Start waiting calls and send data, within the server's stream and window limits."""
        frames = []
        while self._waiting and len(self._calls) < self._max_streams:
            call = self._waiting.popleft()
            call.stream, call.window = self._next_stream, self._stream_window
            call.rest = call.message
            self._next_stream += 2
            self._calls[call.stream] = call
            timeout = _literal(b"grpc-timeout", b"%dm" % min(call.timeout_s * 1000 + 1, 99_999_999))
            frames.append(_frame(_HEADERS, _END_HEADERS, call.stream, self._headers + timeout))
            self._sending.append(call)
        while self._sending:
            call = self._sending[0]
            if call.stream in self._calls:
                size = min(len(call.rest), self._max_frame, self._window, call.window)
                if size <= 0:
                    break
                part, call.rest = call.rest[:size], call.rest[size:]
                self._window -= size
                call.window -= size
                flags = 0 if call.rest else _END_STREAM
                frames.append(_frame(_DATA, flags, call.stream, part))
                if call.rest:
                    continue
            self._sending.popleft()
        if frames:
            self._transport.write(b"".join(frames))

    def _time_out(self, call: _Call) -> None:
        if call.stream in self._calls and not self._transport.is_closing():
            reset = struct.pack("!I", _CANCEL)
            self._transport.write(_frame(_RST_STREAM, 0, call.stream, reset))
        self._finish(call, DeadlineExceededError(f"No answer within {call.timeout_s:.3g} s"))

    def _finish(self, call: _Call, error: ServingError | None) -> None:
        if self._calls.pop(call.stream, None) is None and call in self._waiting:
            self._waiting.remove(call)
        if not call.answer.done():
            if error is None:
                call.answer.set_result(None)
            else:
                call.answer.set_exception(error)
        if self._waiting:
            self._flush()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def _request_headers(authority: str, path: str) -> bytes:
    method = b"\x83"  # POST, in the static table
    return method + b"".join(
        _literal(name, value)
        for name, value in (
            (b":path", path.encode()),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
    )


def _literal(name: bytes, value: bytes) -> bytes:
    """Encode a header field without adding it to the header table (RFC 7541, 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    length = len(text)
    if length < 127:
        return bytes([length]) + text
    encoded, length = bytearray([127]), length - 127
    while length >= 128:
        encoded.append(length % 128 + 128)
        length //= 128
    return bytes([*encoded, length]) + text


def _without_padding(flags: int, payload: bytes) -> bytes:
    if flags & _PADDED:
        payload = payload[1 : len(payload) - payload[0]]
    return payload[5:] if flags & _PRIORITY else payload


def _read_error(block: bytes) -> ServingError:
    import hpack

    fields = {str(name): str(value) for name, value in hpack.Decoder().decode(block)}
    if "grpc-status" not in fields:
        return UnknownError(f"The answer has no grpc-status, but HTTP {fields.get(':status')}")
    code, message = int(fields["grpc-status"]), unquote(fields.get("grpc-message", ""))
    return from_grpc_code(code, message) if code else InternalError("The answer has no message")
