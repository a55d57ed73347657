"""Changes what a running server serves; for operators, not for those who ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from serving.clients import grpc_calls, grpc_messages, wire
from serving.clients.grpc_client import call
from serving.clients.model_choice import ModelChoice
from serving.clients.model_metadata import VersionStatus
from serving.clients.tls import TlsOptions
from serving.errors import NotFoundError, from_grpc_code

if TYPE_CHECKING:
    from typing_extensions import Self


class ModelAdmin:
    """TensorFlow Serving's ModelService.

    Args:
        target: `host:port`.
        tls: Encrypts the connection; None leaves it plain.

    Raises:
        InvalidArgumentError: If a file of `tls` cannot be read.
    """

    def __init__(self, target: str, tls: TlsOptions | None = None) -> None:
        self._channel = grpc_calls.make_channel(grpc, target, tls)
        self._get_status = grpc_calls.bind(self._channel, grpc_calls.GET_MODEL_STATUS)
        self._reload = grpc_calls.bind(self._channel, grpc_calls.RELOAD_CONFIG)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._channel.close()

    def reload_config(self, config: bytes, timeout_s: float) -> None:
        """Replace the models that the server serves, their versions and labels.

        The server answers when models that are new to it are available; it does not wait for new
        versions of a model that it serves already.

        Args:
            config: A serialized `tensorflow.serving.ModelServerConfig`; all that is not in it
                is unloaded.
            timeout_s: How long to wait.

        Raises:
            FailedPreconditionError: If a label is to go to a version that is not available.
            ServingError: As the server or the connection reports it.
        """
        response = call(self._reload, wire.ReloadConfigRequest(config=config), timeout_s)
        if response.status.error_code:
            raise from_grpc_code(response.status.error_code, response.status.error_message)

    def versions(self, model_name: str, timeout_s: float) -> dict[int, VersionStatus]:
        """Return the states of a model's versions by number; none if the server lists none.

        Raises:
            ServingError: As the server or the connection reports it.
        """
        request = grpc_messages.status_request(ModelChoice(model_name))
        try:
            response = call(self._get_status, request, timeout_s)
        except NotFoundError:
            return {}
        return {row.version: row for row in grpc_messages.read_status(response)}
