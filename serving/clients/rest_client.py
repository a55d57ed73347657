"""The REST client."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from serving.clients.model_choice import ModelChoice
from serving.clients.model_metadata import (
    ModelMetadata,
    SignatureSpec,
    TensorSpec,
    VersionStatus,
)
from serving.clients.retrieval_client import DEFAULT_TIMEOUT_S, BaseRetrievalClient
from serving.clients.retry import Deadline, RetryPolicy
from serving.clients.tensor import Tensor, decode_text, encode_text
from serving.clients.tls import TlsOptions
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
        version_label: The label of the version to ask, such as `stable`, instead.
        timeout_s: How long a call may take, retries included, where it does not say so itself.
        retry_policy: How often a call is tried again while the server cannot be reached.
        query_id_name: The input that takes the query id; needed only where the model has several
            inputs that could be it.
        candidate_id_name: The input that takes the candidate id; likewise.
        tls: For an `https` URL: whom to trust and who this client is.

    Raises:
        InvalidArgumentError: If the URL is none, both a version and a label are given, or a file
            of `tls` cannot be read.
    """

    def __init__(
        self,
        url: str,
        model_name: str = "retrieval",
        *,
        model_version: int | None = None,
        version_label: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry_policy: RetryPolicy = RetryPolicy(),
        query_id_name: str | None = None,
        candidate_id_name: str | None = None,
        tls: TlsOptions | None = None,
    ) -> None:
        super().__init__(
            RestTransport(url, model_name, model_version, version_label=version_label, tls=tls),
            timeout_s=timeout_s,
            retry_policy=retry_policy,
            query_id_name=query_id_name,
            candidate_id_name=candidate_id_name,
        )


class RestTransport:
    """The way to a model over REST: one kept-alive connection a thread."""

    def __init__(
        self,
        url: str,
        model_name: str,
        model_version: int | None = None,
        *,
        version_label: str | None = None,
        tls: TlsOptions | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgumentError(f"url must be like 'http://host:8501', got {url!r}")
        if tls is not None and parts.scheme != "https":
            raise InvalidArgumentError(f"tls needs an https URL, got {url!r}")
        self._ssl_context = (tls or TlsOptions()).ssl_context() if parts.scheme == "https" else None
        self._server_name = (tls and tls.server_name) or parts.hostname
        self._host, self._port = parts.hostname, parts.port
        model = ModelChoice(model_name, model_version, version_label)
        self._model_path = f"{parts.path.rstrip('/')}/v1/models/{quote(model.name, safe='')}"
        self._model_version = model.version
        if model.version is not None:
            self._model_path += f"/versions/{model.version}"
        if model.label is not None:
            self._model_path += f"/labels/{quote(model.label, safe='')}"
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
        deadline = Deadline(timeout_s)
        try:
            return _read_answer(*self._send(method, path, content, deadline))
        except TimeoutError as error:
            self._drop_connection()
            raise DeadlineExceededError(f"No answer within {timeout_s:.3g} s") from error
        except (OSError, http.client.HTTPException) as error:
            self._drop_connection()
            raise UnavailableError(
                f"Cannot reach {self._host}:{self._port}: {error or type(error).__name__}"
            ) from error

    def _send(
        self, method: str, path: str, content: bytes | None, deadline: Deadline
    ) -> tuple[int, bytes]:
        connection = self._connection(deadline.left_s())
        was_open = connection.sock is not None
        try:
            return _exchange(connection, method, path, content)
        except (ConnectionError, http.client.RemoteDisconnected):
            # The server closes a kept-alive connection that was idle for a while; that is no
            # failure, and every request may be sent twice.
            if not was_open:
                raise
        self._drop_connection()
        return _exchange(self._connection(deadline.left_s()), method, path, content)

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._new_connection()
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        return connection

    def _new_connection(self) -> http.client.HTTPConnection:
        if self._ssl_context is None:
            return http.client.HTTPConnection(self._host, self._port)
        return _HttpsConnection(self._host, self._port, self._ssl_context, self._server_name)

    def _drop_connection(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None


class _HttpsConnection(http.client.HTTPConnection):
    """As the standard library's, but the certificate may carry another name than the host's."""

    default_port = http.client.HTTPS_PORT

    def __init__(
        self, host: str, port: int | None, context: ssl.SSLContext, server_name: str
    ) -> None:
        super().__init__(host, port)
        self._context = context
        self._server_name = server_name

    def connect(self) -> None:
        super().connect()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self._server_name)


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, content: bytes | None
) -> tuple[int, bytes]:
    connection.request(method, path, content, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


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
