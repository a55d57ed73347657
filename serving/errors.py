"""What can go wrong between a client and a served model, with one table of codes.

The server raises these and its two front ends translate them; the clients receive a code and
raise the same class again. Codes and HTTP statuses are those of TensorFlow Serving
(`tensorflow_serving/model_servers/http_server.cc`, `ToHTTPStatusCode`).
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class ServingError(Exception):
    """The base of every serving error.

    Attributes:
        grpc_code: The number of the gRPC status code.
        http_status: The HTTP status the REST API answers with.
        retryable: Whether the same request may succeed a moment later.
        message: The text that goes over the wire.
    """

    grpc_code: ClassVar[int] = 2
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @classmethod
    def code_name(cls) -> str:
        """Return the canonical name of the code, such as `INVALID_ARGUMENT`."""
        return code_name(cls.grpc_code)


class CancelledError(ServingError):
    """The caller gave up."""


class UnknownError(ServingError):
    """An error without a better class."""


class InvalidArgumentError(ServingError):
    """The request is wrong whatever the state of the server; do not send it again."""


class DeadlineExceededError(ServingError):
    """The answer was not ready in time; a retry would only double the load."""


class NotFoundError(ServingError):
    """No such model or version."""


class AlreadyExistsError(ServingError):
    """What was to be made is there already."""


class PermissionDeniedError(ServingError):
    """The caller may not do this."""


class ResourceExhaustedError(ServingError):
    """The server has too little memory for it, or the message is longer than it takes."""


class FailedPreconditionError(ServingError):
    """The model cannot do what the request asks, such as an unknown signature."""


class AbortedError(ServingError):
    """The operation lost a race."""


class OutOfRangeError(ServingError):
    """A value lies outside of what the model accepts."""


class UnimplementedError(ServingError):
    """This server does not offer the method."""


class InternalError(ServingError):
    """A defect of the server or the model."""


class UnavailableError(ServingError):
    """The server cannot be reached, is going away or has a full queue; a retry may help."""


class DataLossError(ServingError):
    """Stored data is damaged."""


class UnauthenticatedError(ServingError):
    """The caller's credentials are missing or wrong."""


class _Row(NamedTuple):
    cls: type[ServingError]
    grpc_code: int
    name: str
    http_status: int
    retryable: bool = False


# One row a code. Where several codes share an HTTP status, the first row is the one that a REST
# client raises for it.
_TABLE = (
    _Row(CancelledError, 1, "CANCELLED", 499),
    _Row(InternalError, 13, "INTERNAL", 500),
    _Row(UnknownError, 2, "UNKNOWN", 500),
    _Row(InvalidArgumentError, 3, "INVALID_ARGUMENT", 400),
    _Row(DeadlineExceededError, 4, "DEADLINE_EXCEEDED", 504),
    _Row(NotFoundError, 5, "NOT_FOUND", 404),
    _Row(AlreadyExistsError, 6, "ALREADY_EXISTS", 409),
    _Row(PermissionDeniedError, 7, "PERMISSION_DENIED", 403),
    _Row(ResourceExhaustedError, 8, "RESOURCE_EXHAUSTED", 429),
    _Row(FailedPreconditionError, 9, "FAILED_PRECONDITION", 400),
    _Row(AbortedError, 10, "ABORTED", 409),
    _Row(OutOfRangeError, 11, "OUT_OF_RANGE", 400),
    _Row(UnimplementedError, 12, "UNIMPLEMENTED", 501),
    _Row(UnavailableError, 14, "UNAVAILABLE", 503, retryable=True),
    _Row(DataLossError, 15, "DATA_LOSS", 500),
    _Row(UnauthenticatedError, 16, "UNAUTHENTICATED", 401),
)

_CODE_NAMES: dict[int, str] = {row.grpc_code: row.name for row in _TABLE}
_BY_GRPC_CODE: dict[int, type[ServingError]] = {row.grpc_code: row.cls for row in _TABLE}
_BY_HTTP_STATUS: dict[int, type[ServingError]] = {
    row.http_status: row.cls for row in reversed(_TABLE)
}
for _row in _TABLE:
    _row.cls.grpc_code = _row.grpc_code
    _row.cls.http_status = _row.http_status
    _row.cls.retryable = _row.retryable


def code_name(grpc_code: int) -> str:
    """Return the canonical name for the number of a gRPC status code, `OK` included."""
    return "OK" if grpc_code == 0 else _CODE_NAMES.get(grpc_code, str(grpc_code))


def from_grpc_code(code: int, message: str) -> ServingError:
    """Return the error for the number of a gRPC status code."""
    return _BY_GRPC_CODE.get(code, UnknownError)(message)


def from_http_status(status: int, message: str) -> ServingError:
    """Return the error for an HTTP status.

    Three codes share 400; it comes back as `InvalidArgumentError`.
    """
    return _BY_HTTP_STATUS.get(status, UnknownError)(message)
