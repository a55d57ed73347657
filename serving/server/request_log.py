"""The request log: a sample of the answered requests, as JSON lines in rotating files.

A line is the body of a predict request in the column format, which `two-tower skew` reads, with the
time, the model, its version and label, and the recommended candidates. A thread of its own writes
the lines. Requests never wait for it: if its queue is full, they are counted, but not logged.
"""

from __future__ import annotations

import json
import os
import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from tensorflow_serving.apis import model_pb2

from serving.errors import StartupError
from serving.server import event_log
from serving.server.metrics import Metrics
from serving.server.predict import Signature
from serving.server.tensor_codec import Array

_OUTPUT = "candidate_ids"
_MAX_WAITING = 10_000
_STOP_TIMEOUT_S = 5.0


class _Entry(NamedTuple):
    time_s: float
    model: str
    label: str
    version: int
    signature: str
    inputs: dict[str, Array]
    candidate_ids: Array | None


class RequestLog:
    """Writer of the request log.

    Args:
        folder: Folder of the files, which are named `requests-TIME-PID.jsonl`. Each server needs
            one of its own.
        sample: Share of the requests that are logged.
        max_bytes: Size from which the next line goes to a new file.
        max_files: Number of files to keep; older ones are deleted.
        metrics: The metrics that count written and dropped requests.

    Raises:
        StartupError: The folder cannot be written.
    """

    def __init__(
        self, folder: str, sample: float, max_bytes: int, max_files: int, metrics: Metrics
    ) -> None:
        self._folder = Path(folder)
        self._sample, self._max_bytes, self._max_files = sample, max_bytes, max_files
        self._metrics = metrics
        self._queue: queue.Queue[_Entry | None] = queue.Queue(_MAX_WAITING)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._stream: IO[bytes] | None = self._open()
        except OSError as error:
            raise StartupError(f"--request_log_folder: cannot write {folder}: {error}") from error
        self._thread = threading.Thread(target=self._write, name="request_log", daemon=True)
        self._thread.start()

    def add(
        self,
        spec: model_pb2.ModelSpec,
        version: int,
        signature: Signature,
        feeds: Sequence[Array],
        outputs: dict[str, Array],
    ) -> None:
        """Queue an answered request, if it is in the sample."""
        if random.random() >= self._sample:
            return
        inputs = {info.alias: feed for info, feed in zip(signature.inputs, feeds, strict=True)}
        entry = _Entry(
            time.time(),
            spec.name,
            spec.version_label,
            version,
            spec.signature_name,
            inputs,
            outputs.get(_OUTPUT),
        )
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self._metrics.request_log_count.add("dropped")

    def stop(self) -> None:
        """Write the queued requests, for a few seconds at most."""
        try:
            self._queue.put(None, timeout=_STOP_TIMEOUT_S)
        except queue.Full:
            return
        self._thread.join(_STOP_TIMEOUT_S)

    def _write(self) -> None:
        while (entry := self._queue.get()) is not None:
            had_stream = self._stream is not None
            try:
                if self._stream is None or self._stream.tell() >= self._max_bytes:
                    self._stream = self._open()
                self._stream.write(_line(entry))
                self._metrics.request_log_count.add("written")
            except OSError as error:
                self._stream = None
                self._metrics.request_log_count.add("failed")
                if had_stream:  # Log once, not for every request.
                    event_log.error("request_log_failed", folder=self._folder, error=error)
        if self._stream is not None:
            self._stream.close()

    def _open(self) -> IO[bytes]:
        """Open a new file, without a buffer, so that other processes see whole lines."""
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        name = f"requests-{moment}.{time.time_ns() % 10**9:09d}Z-{os.getpid()}.jsonl"
        stream = open(self._folder / name, "ab", buffering=0)  # noqa: SIM115
        for path in sorted(self._folder.glob("requests-*.jsonl"))[: -self._max_files]:
            path.unlink(missing_ok=True)
        return stream


def _line(entry: _Entry) -> bytes:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(entry.time_s))
    fields = {
        "time": f"{seconds}.{int(entry.time_s % 1 * 1e6):06d}Z",
        "model": entry.model,
        "version": entry.version,
        "label": entry.label,
        "signature_name": entry.signature,
        "inputs": {name: _plain(array) for name, array in entry.inputs.items()},
    }
    if entry.candidate_ids is not None:
        fields[_OUTPUT] = _plain(entry.candidate_ids)
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _plain(array: Array) -> Any:
    """Convert an array to lists, without the padding of texts; NaN becomes null."""
    if array.dtype == np.object_:
        if array.ndim == 2:
            return [list(_texts(row)) for row in array]
        return [value.decode("utf-8", "replace") for value in array.ravel()]
    if array.dtype.kind == "f":
        values = array.astype(object)
        values[np.isnan(array)] = None
        return values.tolist()
    return array.tolist()


def _texts(row: Array) -> Iterator[str]:
    return (value.decode("utf-8", "replace") for value in row if value)
