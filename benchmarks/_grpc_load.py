"""A gRPC load generator that costs so little that it measures the server, not itself.

It speaks just the HTTP/2 that one unary call after the other needs: prepared frames go out, and of
what comes back only the frame headers are read. A call costs it about a tenth of what grpcio's
client takes, which on few CPUs would be most of what is measured.

Usage: python benchmarks/_grpc_load.py HOST:PORT PATH REQUESTS_FILE CLIENTS SECONDS
"""

import json
import selectors
import socket
import struct
import sys
import time
from pathlib import Path

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_INITIAL_WINDOW_SIZE = 0x4
_LARGEST_WINDOW = 2**31 - 1
_MAX_STREAM_ID = 2**31 - 1


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Returns an HTTP/2 frame (RFC 9113, section 4.1)."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def header_block(authority: str, path: str) -> bytes:
    """Returns the request headers in HPACK, as literals that index nothing (RFC 7541, 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b""
    for name, value in fields.items():
        if len(name) > 126 or len(value) > 126:
            raise ValueError(f"a header of more than 126 characters: {name}: {value}")
        block += bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return block


class Connection:
    """One client: a connection with one call at a time."""

    def __init__(self, host: str, port: int, path: str, messages: list[bytes], first: int) -> None:
        self._headers = header_block(f"{host}:{port}", path)
        # Prefixed by gRPC's five bytes: not compressed, and the length.
        self._messages = [struct.pack("!BI", 0, len(message)) + message for message in messages]
        self._next = first
        self._stream = -1
        self._answer_bytes = 0
        self._buffer = b""
        self.latencies_s: list[float] = []
        self.failed = 0
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack("!HI", _INITIAL_WINDOW_SIZE, _LARGEST_WINDOW)
        window = struct.pack("!I", _LARGEST_WINDOW - 65_535)
        self.socket.sendall(
            _PREFACE + frame(_SETTINGS, 0, 0, settings) + frame(_WINDOW_UPDATE, 0, 0, window)
        )

    def send(self) -> None:
        """Starts the next call."""
        self._stream += 2
        if self._stream > _MAX_STREAM_ID:
            raise RuntimeError("a connection has no more stream numbers")
        message = self._messages[self._next % len(self._messages)]
        self._next += 1
        self._answer_bytes = 0
        self._sent_at = time.perf_counter()
        self.socket.sendall(
            frame(_HEADERS, _END_HEADERS, self._stream, self._headers)
            + frame(_DATA, _END_STREAM, self._stream, message)
        )

    def receive(self) -> bool:
        """Reads what has come; true once the call is answered."""
        received = self.socket.recv(65_536)
        if not received:
            raise ConnectionError("the server closed the connection")
        data = self._buffer + received
        position, done = 0, False
        while len(data) - position >= 9:
            length = int.from_bytes(data[position : position + 3], "big")
            end = position + 9 + length
            if end > len(data):
                break
            done |= self._take(data[position + 3], data[position + 4], data[position + 9 : end])
            position = end
        self._buffer = data[position:]
        return done

    def _take(self, kind: int, flags: int, payload: bytes) -> bool:
        if kind == _DATA:
            self._answer_bytes += len(payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self.socket.sendall(frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self.socket.sendall(frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            raise ConnectionError("the server goes away")
        if kind == _RST_STREAM or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            # An error has trailers and no message.
            if self._answer_bytes > 5:
                self.latencies_s.append(time.perf_counter() - self._sent_at)
            else:
                self.failed += 1
            return True
        return False


def run_load(
    target: str, path: str, messages: list[bytes], clients: int, seconds: float
) -> dict[str, float]:
    """Keeps `clients` connections busy with one call each.

    Returns:
        `requests_per_s`, `p50_s`, `p99_s`, `answered`, `failed`.
    """
    host, port = target.split(":")
    connections = [
        Connection(host, int(port), path, messages, first=index * 7) for index in range(clients)
    ]
    started = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send()
        while time.perf_counter() - started < seconds:
            for key, _ in selector.select(1.0):
                if key.data.receive():
                    key.data.send()
    elapsed_s = time.perf_counter() - started
    for connection in connections:
        connection.socket.close()
    latencies = sorted(value for connection in connections for value in connection.latencies_s)
    if not latencies:
        raise RuntimeError(f"{target} answered nothing to {path}")
    return {
        "requests_per_s": len(latencies) / elapsed_s,
        "p50_s": latencies[len(latencies) // 2],
        "p99_s": latencies[int(len(latencies) * 0.99)],
        "answered": len(latencies),
        "failed": sum(connection.failed for connection in connections),
    }


def write_messages(path: Path, messages: list[bytes]) -> None:
    """Writes serialized requests, each with its length before it."""
    path.write_bytes(b"".join(struct.pack("!I", len(message)) + message for message in messages))


def read_messages(path: Path) -> list[bytes]:
    """Reads what `write_messages` wrote."""
    content, position, messages = path.read_bytes(), 0, []
    while position < len(content):
        (length,) = struct.unpack_from("!I", content, position)
        messages.append(content[position + 4 : position + 4 + length])
        position += 4 + length
    return messages


if __name__ == "__main__":
    _target, _path, _file, _clients, _seconds = sys.argv[1:]
    _found = run_load(_target, _path, read_messages(Path(_file)), int(_clients), float(_seconds))
    print(json.dumps(_found))
