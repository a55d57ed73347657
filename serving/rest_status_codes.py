"""The HTTP status codes of errors in the REST API, as in TensorFlow Serving.

References:
    `ToHTTPStatusCode` in tensorflow_serving/model_servers/http_server.cc.
"""

from __future__ import annotations

from serving import errors

# If several classes have a status, a client gets the first one.
_STATUS_CODES: dict[type[errors.ServingError], int] = {
    errors.InvalidArgumentError: 400,
    errors.FailedPreconditionError: 400,
    errors.OutOfRangeError: 400,
    errors.UnauthenticatedError: 401,
    errors.PermissionDeniedError: 403,
    errors.NotFoundError: 404,
    errors.AlreadyExistsError: 409,
    errors.AbortedError: 409,
    errors.ResourceExhaustedError: 429,
    errors.CancelledError: 499,
    errors.InternalError: 500,
    errors.DataLossError: 500,
    errors.UnknownError: 500,
    errors.UnimplementedError: 501,
    errors.UnavailableError: 503,
    errors.DeadlineExceededError: 504,
}
_ERRORS = {status: cls for cls, status in reversed(_STATUS_CODES.items())}


def http_status(error: errors.ServingError) -> int:
    """Return the HTTP status of the response for an error."""
    return _STATUS_CODES[type(error)]


def from_http_status(status: int, message: str) -> errors.ServingError:
    """Create the error for an HTTP status; for 400, an `InvalidArgumentError`."""
    return _ERRORS.get(status, errors.UnknownError)(message)
