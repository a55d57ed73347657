"""Reads logged requests: what TensorFlow Serving logs, or bodies of REST requests.

- TFRecord files of `PredictionLog`, as TensorFlow Serving's request logging writes them.
- JSON lines, each the body of a `:predict` request: `{"inputs": …}` or `{"instances": …}`.
"""

import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.features import HISTORY_KEY, FeatureSpec

# Signatures that take a query.
_OF_QUERIES = frozenset({"", "serving_default", "recommend_excluding", "embed_query"})

Row = dict[str, list[Any]]


class RequestLogError(Exception):
    """The file is no log of requests; the message names the place."""


@dataclass
class RequestLog:
    """A file of logged requests, read once.

    Attributes:
        path: The file.
        spec: Which inputs a query has.
        num_requests: Of queries, so far.
        num_others: Requests to signatures without a query, so far.
    """

    path: Path
    spec: FeatureSpec
    num_requests: int = field(default=0, init=False)
    num_others: int = field(default=0, init=False)

    def rows(self) -> Iterator[Row]:
        """Yields each query: the values it has by input; missing ones are left out.

        Raises:
            RequestLogError: A record cannot be read.
        """
        records = _json_lines if _is_json(self.path) else _prediction_logs
        try:
            for signature, columns in records(self.path):
                if signature not in _OF_QUERIES:
                    self.num_others += 1
                    continue
                self.num_requests += 1
                yield from self._rows(columns)
        except OSError as error:
            raise RequestLogError(f"{self.path} cannot be read: {error}") from error

    def _rows(self, columns: Mapping[str, list[Any]]) -> Iterator[Row]:
        spec = self.spec
        kinds: dict[str, Callable[[Any], Any]] = {
            spec.query_id: _text,
            HISTORY_KEY: _text,
            **{
                name: float if feature.kind == "numeric" else _text
                for name, feature in spec.query_features.items()
            },
        }
        sizes = {len(values) for values in columns.values()}
        batch = max(sizes, default=0)
        for place in range(batch):
            row: Row = {}
            for name, convert in kinds.items():
                column = columns.get(name, [])
                # A client may send one row that stands for the whole batch.
                value = column[0 if len(column) == 1 else place] if column else []
                values = value if isinstance(value, list) else [value]
                row[name] = [found for v in values if _is_there(found := convert(v))]
            yield row


def _is_json(path: Path) -> bool:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise RequestLogError(f"{path} cannot be read: {error}") from error
    # A TFRecord begins with its length in eight bytes, of which the last are zero.
    if b"\0" in head:
        return False
    if head.lstrip()[:1] not in (b"{", b""):
        raise RequestLogError(
            f"{path} must hold JSON lines or TFRecords of PredictionLog, got {head[:20]!r}"
        )
    return True


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                body = json.loads(line)
                yield body.get("signature_name", ""), _columns(body)
            except (ValueError, AttributeError, TypeError) as error:
                raise RequestLogError(
                    f"{path}:{number} must be the body of a predict request, with `inputs` or "
                    f"`instances`: {error}"
                ) from error


def _columns(body: Mapping[str, Any]) -> dict[str, list[Any]]:
    if "inputs" in body:
        return {name: _listed(values) for name, values in body["inputs"].items()}
    columns: dict[str, list[Any]] = {}
    if "instances" not in body:
        raise ValueError("it has neither")
    for instance in body["instances"]:
        for name, value in instance.items():
            columns.setdefault(name, []).append(value)
    return columns


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _prediction_logs(path: Path) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    compression = "GZIP" if path.suffix == ".gz" else ""
    try:
        for record in tf.data.TFRecordDataset(str(path), compression).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            request = log.predict_log.request
            yield (
                request.model_spec.signature_name,
                {name: tf.make_ndarray(value).tolist() for name, value in request.inputs.items()},
            )
    except (tf.errors.OpError, DecodeError) as error:
        raise RequestLogError(
            f"{path} must hold TFRecords of PredictionLog, or JSON lines: {error}"
        ) from error


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_there(value: Any) -> bool:
    return bool(value != "") and not (isinstance(value, float) and math.isnan(value))
