"""The REST client."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from serving.clients.model_metadata import (
    ModelMetadata,
    SignatureSpec,
    TensorSpec,
    VersionStatus,
)
from serving.clients.retrieval_client import DEFAULT_TIMEOUT_S, BaseRetrievalClient
from serving.clients.retry import RetryPolicy
from serving.clients.tensor import Tensor, decode_text, encode_text
from serving.clients.transport import Prediction
from serving.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    UnavailableError,
    from_http_status,
)


class RestRetrievalClient(BaseRetrievalClient):
    """Asks a retrieval model over REST.

        with RestRetrievalClient("http://127.0.0.1:8501") as client:
            client.recommend("u1", history=["m1", "m2"], features={"age": 30}, k=10)

    Args:
        url: `http://host:port`, with a path before `/v1` if a proxy adds one.
        model_name: The name under which the model is served.
        model_version: The version to ask; None for the newest.
        timeout_s: How long a call may take, retries included.
        retry_policy: How often a call is tried again while the server cannot be reached.
        query_id_name: The input that takes the query id; needed only where the model has several
            inputs that could be it.
        candidate_id_name: The input that takes the candidate id; likewise.
    """

    def __init__(
        self,
        url: str,
        model_name: str = "retrieval",
        *,
        model_version: int | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry_policy: RetryPolicy = RetryPolicy(),
        query_id_name: str | None = None,
        candidate_id_name: str | None = None,
    ) -> None:
        super().__init__(
            RestTransport(url, model_name, model_version),
            timeout_s=timeout_s,
            retry_policy=retry_policy,
            query_id_name=query_id_name,
            candidate_id_name=candidate_id_name,
        )


class RestTransport:
    """The way to a model over REST: one kept-alive connection a thread."""

    def __init__(self, url: str, model_name: str, model_version: int | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgumentError(f"url must be like 'http://host:8501', got {url!r}")
        self._is_https = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._model_path = f"{parts.path.rstrip('/')}/v1/models/{quote(model_name, safe='')}"
        self._model_version = model_version
        if model_version is not None:
            self._model_path += f"/versions/{model_version}"
        self._local = threading.local()

    def predict(
        self, signature: SignatureSpec, inputs: Mapping[str, Tensor], timeout_s: float
    ) -> Prediction:
        """Run a signature."""
        body = {
            "signature_name": signature.name,
            "inputs": {name: _nested(tensor) for name, tensor in inputs.items()},
        }
        answer = self._ask("POST", f"{self._model_path}:predict", timeout_s, body)["outputs"]
        # A signature with one output is answered with the bare value.
        named = answer if isinstance(answer, dict) else {next(iter(signature.outputs)): answer}
        outputs = {
            name: _tensor(value, signature.outputs[name].dtype) for name, value in named.items()
        }
        return Prediction(outputs, self._model_version)

    def metadata(self, timeout_s: float) -> ModelMetadata:
        """Describe the model's signatures."""
        answer = self._ask("GET", f"{self._model_path}/metadata", timeout_s)
        definitions = answer["metadata"]["signature_def"]["signature_def"]
        return ModelMetadata(
            int(answer["model_spec"]["version"]),
            {
                name: SignatureSpec(
                    name,
                    _tensor_specs(definition["inputs"]),
                    _tensor_specs(definition["outputs"]),
                )
                for name, definition in definitions.items()
            },
        )

    def status(self, timeout_s: float) -> list[VersionStatus]:
        """Tell the states of the model's versions."""
        answer = self._ask("GET", self._model_path, timeout_s)
        return [
            VersionStatus(
                int(row["version"]),
                row["state"],
                row["status"]["error_code"],
                row["status"]["error_message"],
            )
            for row in answer["model_version_status"]
        ]

    def close(self) -> None:
        """Close this thread's connection; those of other threads close with them."""
        self._drop_connection()

    def _ask(
        self, method: str, path: str, timeout_s: float, body: dict[str, Any] | None = None
    ) -> Any:
        content = None
        if body is not None:
            content = encode_text(json.dumps(body, ensure_ascii=False))
        connection = self._connection(timeout_s)
        try:
            connection.request(method, path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        except TimeoutError as error:
            self._drop_connection()
            raise DeadlineExceededError(f"No answer within {timeout_s:.3g} s") from error
        except (OSError, http.client.HTTPException) as error:
            # Also a kept-alive connection that the server has closed since: a retry opens another.
            self._drop_connection()
            raise UnavailableError(
                f"Cannot reach {self._host}:{self._port}: {error or type(error).__name__}"
            ) from error
        return _read_answer(response.status, answer)

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._is_https else http.client.HTTPConnection
            connection = self._local.connection = kind(self._host, self._port)
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        return connection

    def _drop_connection(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None


def _read_answer(status: int, content: bytes) -> Any:
    text = decode_text(content)
    try:
        answer = json.loads(text)
    except ValueError as error:
        if status == 200:
            raise InternalError(f"The server's answer is no JSON: {text[:100]!r}") from error
        raise from_http_status(status, text[:200]) from error
    if status != 200:
        message = answer.get("error", text) if isinstance(answer, dict) else text
        raise from_http_status(status, message)
    return answer


def _nested(tensor: Tensor) -> list[Any]:
    if len(tensor.shape) == 1:
        return list(tensor.values)
    return [list(row) for row in tensor.rows()]


def _tensor(value: Any, dtype: str) -> Tensor:
    rows = value if value and isinstance(value[0], list) else None
    if rows is None:
        return Tensor(dtype, (len(value),), value)
    return Tensor(dtype, (len(rows), len(rows[0])), [item for row in rows for item in row])


def _tensor_specs(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {name: _tensor_spec(info) for name, info in infos.items()}


def _tensor_spec(info: Mapping[str, Any]) -> TensorSpec:
    dtype = info["dtype"].removeprefix("DT_").lower()
    shape = info["tensor_shape"]
    if shape["unknown_rank"]:
        return TensorSpec(dtype, None)
    sizes = [int(dim["size"]) for dim in shape["dim"]]
    return TensorSpec(dtype, tuple(size if size >= 0 else None for size in sizes))
