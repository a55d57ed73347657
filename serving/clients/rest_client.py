"""The REST client."""

from __future__ import annotations

import http.client
import json
import math
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

from google.protobuf import json_format

from serving.clients import messages_pb2
from serving.clients.answer import Prediction
from serving.clients.blocking_client import BlockingClient
from serving.clients.messages import Message, read_signatures, read_status
from serving.clients.model import (
    ModelChoice,
    ModelMetadata,
    SignatureSpec,
    Tensor,
    VersionStatus,
    decode_text,
    encode_text,
)
from serving.clients.query import FLOATS
from serving.clients.retrieval_client import ClientOptions
from serving.clients.retry import Deadline, Exchange
from serving.clients.tls import TlsOptions
from serving.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    UnavailableError,
    from_http_status,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")


class RestRetrievalClient(BlockingClient):
    """A client of a retrieval model over REST, with one kept-alive connection per thread.

        with RestRetrievalClient("http://127.0.0.1:8501") as client:
            client.recommend("u1", history=["m1", "m2"], features={"age": 30}, k=10)

    Args:
        url: `http://host:port` or `https://host:port`, and the path before `/v1` if there is one.
        model_name: The name under which the model is served.
        tls: TLS options, which are only allowed with an `https` URL.
        options: See `RetrievalMethods`.

    Raises:
        InvalidArgumentError: If the URL or an option is invalid, or a file in `tls` cannot be
            read.
    """

    def __init__(
        self,
        url: str,
        model_name: str = "retrieval",
        *,
        tls: TlsOptions | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except (AttributeError, ValueError):  # not a string, or an invalid port
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in ("http", "https") or not host:
            raise InvalidArgumentError(f"url must be like 'http://host:8501', got {url!r}")
        if tls is not None and parts.scheme != "https":
            raise InvalidArgumentError(f"tls needs an https URL, got {url!r}")
        self._ssl_context = (tls or TlsOptions()).ssl_context() if parts.scheme == "https" else None
        self._server_name = (tls and tls.server_name) or host
        self._host, self._port = host, port
        self._local = threading.local()
        super().__init__(
            lambda model: RestProtocol(quote(parts.path.rstrip("/"), "/%"), model),
            model_name,
            **options,
        )

    def close(self) -> None:
        """Close this thread's connection. Other connections are closed when their threads end."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _send(self, request: HttpRequest, timeout_s: float) -> Any:
        deadline = Deadline(timeout_s)
        try:
            return _read_answer(*self._send_to_kept_connection(request, deadline))
        except TimeoutError as error:
            self.close()
            raise DeadlineExceededError(f"No answer within {timeout_s:.3g} s") from error
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            self.close()
            raise UnavailableError(
                f"Cannot reach {self._host}:{self._port}: {error or type(error).__name__}"
            ) from error

    def _send_to_kept_connection(
        self, request: HttpRequest, deadline: Deadline
    ) -> tuple[int, bytes]:
        connection = self._connection(deadline.left_s())
        was_open = connection.sock is not None
        try:
            return _send_over(connection, request)
        except (ConnectionError, http.client.RemoteDisconnected):
            # Servers close idle kept-alive connections. So connect again and repeat the request,
            # which is safe because requests are idempotent.
            if not was_open:
                raise
        self.close()
        return _send_over(self._connection(deadline.left_s()), request)

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            if self._ssl_context is None:
                connection = http.client.HTTPConnection(self._host, self._port)
            else:
                connection = _HttpsConnection(
                    self._host, self._port, self._ssl_context, self._server_name
                )
            self._local.connection = connection
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        return connection


class _HttpsConnection(http.client.HTTPConnection):
    """An HTTPS connection that verifies the certificate against `server_name`, not the host."""

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


class HttpRequest(NamedTuple):
    """A request of the REST API."""

    method: str
    path: str
    body: Any = None


class RestProtocol:
    """Builder of REST requests for one model, and parser of their responses."""

    def __init__(self, prefix: str, model: ModelChoice) -> None:
        self._version = model.version
        self._path = f"{prefix}/v1/models/{quote(model.name, safe='')}"
        if model.version is not None:
            self._path += f"/versions/{model.version}"
        if model.label is not None:
            self._path += f"/labels/{quote(model.label, safe='')}"

    def predict(
        self, signature: SignatureSpec, inputs: Mapping[str, Tensor]
    ) -> Exchange[Prediction]:
        """Build the request that runs a signature."""

        def read(answer: Any) -> Prediction:
            outputs = answer["outputs"]
            if not isinstance(outputs, dict):  # the server omits the name of a single output
                outputs = {next(iter(signature.outputs)): outputs}
            tensors = {
                name: _tensor(value, signature.outputs[name].dtype)
                for name, value in outputs.items()
            }
            return Prediction(tensors, self._version)

        body = {
            "signature_name": signature.name,
            "inputs": {name: _nested(tensor) for name, tensor in inputs.items()},
        }
        return _exchange(HttpRequest("POST", f"{self._path}:predict", body), read)

    def metadata(self) -> Exchange[ModelMetadata]:
        """Build the request for the model's signatures."""

        def read(answer: Any) -> ModelMetadata:
            definitions = answer["metadata"]["signature_def"]
            signatures = read_signatures(_message(definitions, messages_pb2.SignatureDefMap()))
            return ModelMetadata(int(answer["model_spec"]["version"]), signatures)

        return _exchange(HttpRequest("GET", f"{self._path}/metadata"), read)

    def status(self) -> Exchange[list[VersionStatus]]:
        """Build the request for the states of the model's versions."""

        def read(answer: Any) -> list[VersionStatus]:
            return read_status(_message(answer, messages_pb2.GetModelStatusResponse()))

        return _exchange(HttpRequest("GET", self._path), read)


def _message(answer: Any, message: Message) -> Message:
    if not isinstance(answer, dict):  # ParseDict accepts an empty list
        raise TypeError("not a JSON object")
    return json_format.ParseDict(answer, message, ignore_unknown_fields=True)


def _exchange(request: HttpRequest, read: Callable[[Any], T]) -> Exchange[T]:
    def read_or_fail(answer: Any) -> T:
        try:
            return read(answer)
        except (LookupError, TypeError, ValueError, AttributeError, json_format.Error) as error:
            raise InternalError(
                "The answer must have the format of TensorFlow Serving's REST API, got "
                f"{json.dumps(answer)[:100]}"
            ) from error

    return Exchange(request, read_or_fail)


def _send_over(connection: http.client.HTTPConnection, request: HttpRequest) -> tuple[int, bytes]:
    content = None
    if request.body is not None:
        content = encode_text(json.dumps(request.body, ensure_ascii=False))
    headers = {"Content-Type": "application/json"}
    connection.request(request.method, request.path, content, headers)
    response = connection.getresponse()
    return response.status, response.read()


def _read_answer(status: int, content: bytes) -> Any:
    text = decode_text(content)
    try:
        answer = json.loads(text)
    except ValueError as error:
        if status == 200:
            raise InternalError(f"The answer must be JSON, got {text[:100]!r}") from error
        raise from_http_status(status, text[:200]) from error
    if status != 200:
        message = answer.get("error", text) if isinstance(answer, dict) else text
        raise from_http_status(status, str(message))
    return answer


def _nested(tensor: Tensor) -> list[Any]:
    if len(tensor.shape) == 1:
        return list(tensor.values)
    return [list(row) for row in tensor.rows()]


def _tensor(value: Any, dtype: str) -> Tensor:
    if value and isinstance(value[0], list):
        shape: tuple[int, ...] = (len(value), len(value[0]))
        value = [item for row in value for item in row]
    else:
        shape = (len(value),)
    if dtype in FLOATS and None in value:  # JSON has no NaN.
        value = [math.nan if item is None else item for item in value]
    return Tensor(dtype, shape, value)
