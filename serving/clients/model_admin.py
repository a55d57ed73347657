"""Client for operators that changes the models and versions of a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from serving.clients import messages_pb2
from serving.clients.grpc_client import bind, make_channel, send
from serving.clients.messages import GrpcProtocol
from serving.clients.model import ModelChoice, VersionStatus
from serving.clients.tls import TlsOptions
from serving.errors import NotFoundError, from_grpc_code

if TYPE_CHECKING:
    from typing_extensions import Self


class ModelAdmin:
    """A client of TensorFlow Serving's ModelService.

        with ModelAdmin("127.0.0.1:8500") as admin:
            admin.reload_config(config.SerializeToString(), timeout_s=60)

    Args:
        target: `host:port`.
        tls: TLS options; None for an unencrypted connection.

    Raises:
        InvalidArgumentError: If a file in `tls` cannot be read.
    """

    def __init__(self, target: str, tls: TlsOptions | None = None) -> None:
        self._channel = make_channel(grpc, target, tls)
        self._call = bind(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._channel.close()

    def reload_config(self, config: bytes, timeout_s: float) -> None:
        """Replace the list of served models, with their versions and labels.

        The call waits until models that the server did not serve before are available. It does
        not wait for new versions of other models.

        Args:
            config: A serialized `tensorflow.serving.ModelServerConfig`. The server unloads every
                model that is not in it.
            timeout_s: Time limit of the call.

        Raises:
            FailedPreconditionError: If a label is assigned to a version that is not available.
            ServingError: Any other error of the server or the connection.
        """
        request = messages_pb2.ReloadConfigRequest(config=config)
        response = send(self._call, request, timeout_s)
        if response.status.error_code:
            raise from_grpc_code(response.status.error_code, response.status.error_message)

    def versions(self, model_name: str, timeout_s: float) -> dict[int, VersionStatus]:
        """Return the state of each version of a model by number; {} if the server has no version.

        Raises:
            ServingError: If the request fails with any error except NOT_FOUND.
        """
        exchange = GrpcProtocol(ModelChoice(model_name)).status()
        try:
            rows = exchange.read(send(self._call, exchange.request, timeout_s))
        except NotFoundError:
            return {}
        return {row.version: row for row in rows}
