"""Reader of logged requests, in one of two formats.

- TFRecord files of `PredictionLog`, as written by the request logging of TensorFlow Serving.
- JSON lines, each the body of a `:predict` request: `{"inputs": …}` or `{"instances": …}`.
"""

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from models.features.spec import HISTORY_KEY, MISSING_TIME, FeatureSpec
from pipeline.errors import RequestLogError, reason_of

# Signatures whose input is a query.
_OF_QUERIES = frozenset({"", "serving_default", "recommend_excluding", "embed_query"})

Row = dict[str, list[Any]]


@dataclass
class RequestLog:
    """A file of logged requests, which is read once."""

    path: Path
    spec: FeatureSpec
    num_requests: int = field(default=0, init=False)
    num_others: int = field(default=0, init=False)

    def rows(self) -> Iterator[Row]:
        """Yield each query as a list of values per input; missing values are omitted.

        Raises:
            RequestLogError: The file or a record cannot be read.
        """
        try:
            records = _json_lines if _is_json(self.path) else _prediction_logs
            for where, signature, columns in records(self.path):
                if signature not in _OF_QUERIES:
                    self.num_others += 1
                    continue
                self.num_requests += 1
                try:
                    rows = list(self._rows(columns))
                except (TypeError, ValueError) as error:
                    raise RequestLogError(f"{where}: {error}") from error
                yield from rows
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise RequestLogError(f"{self.path} cannot be read: {reason_of(error)}") from error

    def _rows(self, columns: Mapping[str, list[Any]]) -> Iterator[Row]:
        """Yield the queries of a request.

        Raises:
            ValueError: A value has the wrong type for its input, or inputs have different numbers
                of rows.
        """
        spec = self.spec
        kinds: dict[str, Callable[[Any], Any]] = {
            spec.query_id: _text,
            HISTORY_KEY: _text,
            **{name: _CONVERTERS[feature.dtype] for name, feature in spec.query_features.items()},
        }
        sizes = {len(values) for values in columns.values()}
        batch = max(sizes, default=0)
        if not sizes <= {0, 1, batch}:
            shown = ", ".join(f"{name} {len(values)}" for name, values in sorted(columns.items()))
            raise ValueError(
                f"its inputs must each have one row or the same number of rows, got {shown}"
            )
        for index in range(batch):
            row: Row = {}
            for name, convert in kinds.items():
                column = columns.get(name, [])
                # A client may send a single row of an input for the whole batch.
                value = column[0 if len(column) == 1 else index] if column else []
                values = value if isinstance(value, list) else [value]
                try:
                    found = [convert(v) for v in values if v is not None]
                except (TypeError, ValueError, OverflowError) as error:
                    raise ValueError(f"input {name!r}, row {index + 1}: {error}") from error
                row[name] = [value for value in found if _is_present(value)]
            yield row


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _is_json(path: Path) -> bool:
    with _open(path) as stream:
        head = stream.read(64)
    # A TFRecord starts with its length as an 8-byte little-endian integer, which ends with zeros.
    if b"\0" in head:
        return False
    if head.lstrip()[:1] not in (b"{", b""):
        raise RequestLogError(
            f"{path} must be JSON lines or TFRecords of PredictionLog, got {head[:20]!r}"
        )
    return True


def _json_lines(path: Path) -> Iterator[tuple[str, str, dict[str, list[Any]]]]:
    """Yield the position, signature and inputs of each request in a JSON lines file."""
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                body = json.loads(line)
                signature, columns = body.get("signature_name") or "", _columns(body)
            except (ValueError, AttributeError, TypeError) as error:
                raise RequestLogError(
                    f"{path}:{number} must be the body of a predict request, with `inputs` or "
                    f"`instances`: {error}"
                ) from error
            yield f"{path}:{number}", signature, columns


def _columns(body: Mapping[str, Any]) -> dict[str, list[Any]]:
    if "inputs" in body:
        return {name: _listed(values) for name, values in body["inputs"].items()}
    if "instances" not in body:
        raise ValueError("it has neither of them")
    instances = body["instances"]
    names = dict.fromkeys(name for instance in instances for name in instance)
    # A missing value becomes None, so that the values of later instances keep their positions.
    return {name: [instance.get(name) for instance in instances] for name in names}


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _prediction_logs(path: Path) -> Iterator[tuple[str, str, dict[str, list[Any]]]]:
    """Yield the position, signature and inputs of each request in a PredictionLog file."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    compression = "GZIP" if path.suffix == ".gz" else ""
    try:
        records = tf.data.TFRecordDataset(str(path), compression).as_numpy_iterator()
        for number, record in enumerate(records, start=1):
            log = prediction_log_pb2.PredictionLog.FromString(record)
            request = log.predict_log.request
            where = f"{path}: record {number}"
            try:
                columns = {
                    name: _listed(tf.make_ndarray(value).tolist())
                    for name, value in request.inputs.items()
                }
            except (TypeError, ValueError) as error:
                raise RequestLogError(
                    f"{where} has a tensor that cannot be read: {reason_of(error)}"
                ) from error
            yield where, request.model_spec.signature_name, columns
    except (tf.errors.OpError, DecodeError) as error:
        raise RequestLogError(
            f"{path} must be TFRecords of PredictionLog, or JSON lines: {error}"
        ) from error


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError(f"must be a number, got {value}")
    return float(value)


def _text(value: Any) -> str:
    if isinstance(value, list | dict):
        raise TypeError(f"must be text, got {value!r:.80}")
    # JSON can contain unpaired surrogates, which UTF-8 cannot encode.
    text = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
    return text.decode("utf-8", "replace")


def _is_present(value: Any) -> bool:
    return value not in ("", MISSING_TIME) and not (isinstance(value, float) and math.isnan(value))


_CONVERTERS: dict[str, Callable[[Any], Any]] = {"string": _text, "float32": _number, "int64": int}
