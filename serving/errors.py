"""The errors of the `serving` package.

The server raises them and sends them as gRPC status codes or HTTP statuses. The clients convert
these back and raise the same classes. The mapping of codes to HTTP statuses is TensorFlow Serving's
(`ToHTTPStatusCode` in `tensorflow_serving/model_servers/http_server.cc`).

    ServingError
    ├── InvalidArgumentError, OutOfRangeError     the request is invalid
    ├── FailedPreconditionError                   the model does not support the request
    ├── NotFoundError, UnimplementedError         no such model, version, label or method
    ├── DeadlineExceededError, CancelledError     no answer in time
    ├── UnavailableError                          the server is down or busy; a retry may help
    ├── ResourceExhaustedError                    too little memory, or too large a message
    ├── InternalError, DataLossError              a defect of the server or the model
    └── UnknownError, AlreadyExistsError, AbortedError, PermissionDeniedError, UnauthenticatedError
    LaunchError                                   a model server process did not start
"""

from __future__ import annotations

from typing import ClassVar


class LaunchError(RuntimeError):
    """A model server process did not start; the message ends with the last lines of its log."""


class ServingError(Exception):
    """The base class of all request errors.

    Attributes:
        grpc_code: The number of the gRPC status code.
        name: The canonical name of the code, such as `INVALID_ARGUMENT`.
        http_status: The HTTP status of the REST response.
        retryable: True if the same request may succeed a moment later.
        message: The error message for the client.
    """

    grpc_code: ClassVar[int] = 2
    name: ClassVar[str] = "UNKNOWN"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @classmethod
    def code_name(cls) -> str:
        """Return the canonical name of the code, such as `INVALID_ARGUMENT`."""
        return cls.name


class CancelledError(ServingError):
    """The request was cancelled."""

    grpc_code, name, http_status = 1, "CANCELLED", 499


class InternalError(ServingError):
    """The server or the model has a defect."""

    grpc_code, name, http_status = 13, "INTERNAL", 500


class UnknownError(ServingError):
    """The error has an unknown code or does not fit any other class."""

    grpc_code, name, http_status = 2, "UNKNOWN", 500


class InvalidArgumentError(ServingError):
    """The request is invalid, regardless of the state of the server."""

    grpc_code, name, http_status = 3, "INVALID_ARGUMENT", 400


class DeadlineExceededError(ServingError):
    """The response was not ready before the deadline."""

    grpc_code, name, http_status = 4, "DEADLINE_EXCEEDED", 504


class NotFoundError(ServingError):
    """The model, version or label does not exist."""

    grpc_code, name, http_status = 5, "NOT_FOUND", 404


class AlreadyExistsError(ServingError):
    """The object to create already exists."""

    grpc_code, name, http_status = 6, "ALREADY_EXISTS", 409


class PermissionDeniedError(ServingError):
    """The caller has no permission for this operation."""

    grpc_code, name, http_status = 7, "PERMISSION_DENIED", 403


class ResourceExhaustedError(ServingError):
    """The server has too little memory, or the message is too large."""

    grpc_code, name, http_status = 8, "RESOURCE_EXHAUSTED", 429


class FailedPreconditionError(ServingError):
    """The served model or its state does not allow the request."""

    grpc_code, name, http_status = 9, "FAILED_PRECONDITION", 400


class AbortedError(ServingError):
    """The operation conflicted with another one."""

    grpc_code, name, http_status = 10, "ABORTED", 409


class OutOfRangeError(ServingError):
    """A value is outside the range that the model accepts."""

    grpc_code, name, http_status = 11, "OUT_OF_RANGE", 400


class UnimplementedError(ServingError):
    """The server does not implement the method."""

    grpc_code, name, http_status = 12, "UNIMPLEMENTED", 501


class UnavailableError(ServingError):
    """The server cannot be reached, is shutting down, or has a full queue."""

    grpc_code, name, http_status = 14, "UNAVAILABLE", 503
    retryable = True


class DataLossError(ServingError):
    """Stored data is damaged."""

    grpc_code, name, http_status = 15, "DATA_LOSS", 500


class UnauthenticatedError(ServingError):
    """The caller's credentials are missing or wrong."""

    grpc_code, name, http_status = 16, "UNAUTHENTICATED", 401


_CLASSES = ServingError.__subclasses__()
_BY_GRPC_CODE = {cls.grpc_code: cls for cls in _CLASSES}
# If several classes share an HTTP status, the first one defined above is used.
_BY_HTTP_STATUS = {cls.http_status: cls for cls in reversed(_CLASSES)}


def code_name(grpc_code: int) -> str:
    """Return the canonical name of a gRPC status code, such as `OK`; the number if unknown."""
    if grpc_code == 0:
        return "OK"
    cls = _BY_GRPC_CODE.get(grpc_code)
    return str(grpc_code) if cls is None else cls.name


def from_grpc_code(code: int, message: str) -> ServingError:
    """Create the error for a gRPC status code."""
    return _BY_GRPC_CODE.get(code, UnknownError)(message)


def from_http_status(status: int, message: str) -> ServingError:
    """Create the error for an HTTP status.

    If several classes have this status, the first one is used: `InvalidArgumentError` for 400, for
    example.
    """
    return _BY_HTTP_STATUS.get(status, UnknownError)(message)
