"""The errors of the `serving` package.

The server raises them and sends them as gRPC status codes, or as the HTTP statuses in
`rest_status_codes.py`. The clients convert these back and raise the same classes.

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
        code_name: The canonical name of the code, such as `INVALID_ARGUMENT`.
        retryable: True if the same request may succeed a moment later.
        message: The error message for the client.
    """

    grpc_code: ClassVar[int]
    code_name: ClassVar[str]
    retryable: ClassVar[bool]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __init_subclass__(cls, grpc_code: int, retryable: bool = False) -> None:
        cls.grpc_code, cls.retryable = grpc_code, retryable
        cls.code_name = re.sub("(?<=[a-z])(?=[A-Z])", "_", cls.__name__[: -len("Error")]).upper()


class CancelledError(ServingError, grpc_code=1):
    """The request was cancelled."""


class InternalError(ServingError, grpc_code=13):
    """The server or the model has a defect."""


class UnknownError(ServingError, grpc_code=2):
    """The error has an unknown code or does not fit any other class."""


class InvalidArgumentError(ServingError, grpc_code=3):
    """The request is invalid, regardless of the state of the server."""


class DeadlineExceededError(ServingError, grpc_code=4):
    """The response was not ready before the deadline."""


class NotFoundError(ServingError, grpc_code=5):
    """The model, version or label does not exist."""


class AlreadyExistsError(ServingError, grpc_code=6):
    """The object to create already exists."""


class PermissionDeniedError(ServingError, grpc_code=7):
    """The caller has no permission for this operation."""


class ResourceExhaustedError(ServingError, grpc_code=8):
    """The server has too little memory, or the message is too large."""


class FailedPreconditionError(ServingError, grpc_code=9):
    """The served model or its state does not allow the request."""


class AbortedError(ServingError, grpc_code=10):
    """The operation conflicted with another one."""


class OutOfRangeError(ServingError, grpc_code=11):
    """A value is outside the range that the model accepts."""


class UnimplementedError(ServingError, grpc_code=12):
    """The server does not implement the method."""


class UnavailableError(ServingError, grpc_code=14, retryable=True):
    """The server cannot be reached, is shutting down, or has a full queue."""


class DataLossError(ServingError, grpc_code=15):
    """Stored data is damaged."""


class UnauthenticatedError(ServingError, grpc_code=16):
    """The caller's credentials are missing or wrong."""


_BY_GRPC_CODE = {cls.grpc_code: cls for cls in ServingError.__subclasses__()}


def code_name(grpc_code: int) -> str:
    """Return the canonical name of a gRPC status code, such as `OK`; the number if unknown."""
    if grpc_code == 0:
        return "OK"
    cls = _BY_GRPC_CODE.get(grpc_code)
    return str(grpc_code) if cls is None else cls.code_name


def from_grpc_code(code: int, message: str) -> ServingError:
    """Create the error for a gRPC status code."""
    return _BY_GRPC_CODE.get(code, UnknownError)(message)
