from __future__ import annotations

import grpc
import pytest

from serving import errors


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_every_grpc_code_has_its_class(code: grpc.StatusCode) -> None:
    number = code.value[0]
    error = errors.from_grpc_code(number, "text")
    assert (error.grpc_code, error.code_name, error.message) == (number, code.name, "text")


def test_only_unavailable_is_retryable() -> None:
    retryable = [code for code in range(1, 17) if errors.from_grpc_code(code, "").retryable]
    assert retryable == [grpc.StatusCode.UNAVAILABLE.value[0]]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidArgumentError),
        (404, errors.NotFoundError),
        (429, errors.ResourceExhaustedError),
        (503, errors.UnavailableError),
        (504, errors.DeadlineExceededError),
        (418, errors.UnknownError),
    ],
)
def test_http_statuses_map_to_the_first_class(status: int, kind: type[errors.ServingError]) -> None:
    assert type(errors.from_http_status(status, "")) is kind
    assert kind is errors.UnknownError or kind.http_status == status
