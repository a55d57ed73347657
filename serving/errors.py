"""The errors of the `serving` package.

The server raises them and sends them as gRPC status codes, or as HTTP statuses, which are those of
TensorFlow Serving. The clients convert these back and raise the same classes.

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
    StartupError                                  a flag, file or port of the server is unusable
"""

from __future__ import annotations

import re
from typing import ClassVar


class LaunchError(RuntimeError):
    """A model server process did not start; the message ends with the last lines of its log."""


class StartupError(Exception):
    """The server cannot start; the message tells the operator how to fix it."""


class ServingError(Exception):
    """The base class of all request errors.

    Attributes:
        grpc_code: The number of the gRPC status code.
        http_status: The HTTP status of the response over REST.
        code_name: The canonical name of the code, such as `INVALID_ARGUMENT`.
        retryable: True if the same request may succeed a moment later.
    """

    grpc_code: ClassVar[int]
    http_status: ClassVar[int]
    code_name: ClassVar[str]
    retryable: ClassVar[bool]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __init_subclass__(cls, grpc_code: int, http_status: int, retryable: bool = False) -> None:
        cls.grpc_code, cls.http_status, cls.retryable = grpc_code, http_status, retryable
        cls.code_name = re.sub("(?<=[a-z])(?=[A-Z])", "_", cls.__name__[: -len("Error")]).upper()


class CancelledError(ServingError, grpc_code=1, http_status=499):
    """The request was cancelled."""


class InternalError(ServingError, grpc_code=13, http_status=500):
    """The server or the model has a defect."""


class UnknownError(ServingError, grpc_code=2, http_status=500):
    """The error has an unknown code or does not fit any other class."""


class InvalidArgumentError(ServingError, grpc_code=3, http_status=400):
    """The request is invalid, regardless of the state of the server."""


class DeadlineExceededError(ServingError, grpc_code=4, http_status=504):
    """The response was not ready before the deadline."""


class NotFoundError(ServingError, grpc_code=5, http_status=404):
    """The model, version or label does not exist."""


class AlreadyExistsError(ServingError, grpc_code=6, http_status=409):
    """The object to create already exists."""


class PermissionDeniedError(ServingError, grpc_code=7, http_status=403):
    """The caller has no permission for this operation."""


class ResourceExhaustedError(ServingError, grpc_code=8, http_status=429):
    """The server has too little memory, or the message is too large."""


class FailedPreconditionError(ServingError, grpc_code=9, http_status=400):
    """The served model or its state does not allow the request."""


class AbortedError(ServingError, grpc_code=10, http_status=409):
    """The operation conflicted with another one."""


class OutOfRangeError(ServingError, grpc_code=11, http_status=400):
    """A value is outside the range that the model accepts."""


class UnimplementedError(ServingError, grpc_code=12, http_status=501):
    """The server does not implement the method."""


class UnavailableError(ServingError, grpc_code=14, http_status=503, retryable=True):
    """The server cannot be reached, is shutting down, or has a full queue."""


class DataLossError(ServingError, grpc_code=15, http_status=500):
    """Stored data is damaged."""


class UnauthenticatedError(ServingError, grpc_code=16, http_status=401):
    """The caller's credentials are missing or wrong."""


_BY_GRPC_CODE = {cls.grpc_code: cls for cls in ServingError.__subclasses__()}
# If several classes have a status, a client gets the first one.
_BY_HTTP_STATUS = {cls.http_status: cls for cls in reversed(ServingError.__subclasses__())}


def code_name(grpc_code: int) -> str:
    """Return the canonical name of a gRPC status code, such as `OK`; the number if unknown."""
    if grpc_code == 0:
        return "OK"
    cls = _BY_GRPC_CODE.get(grpc_code)
    return str(grpc_code) if cls is None else cls.code_name


def from_grpc_code(code: int, message: str) -> ServingError:
    """Create the error for a gRPC status code."""
    return _BY_GRPC_CODE.get(code, UnknownError)(message)


def from_http_status(status: int, message: str) -> ServingError:
    """Create the error for an HTTP status; for 400, an `InvalidArgumentError`."""
    return _BY_HTTP_STATUS.get(status, UnknownError)(message)
