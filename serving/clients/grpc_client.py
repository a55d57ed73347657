"""The gRPC client that blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc

from serving.clients import grpc_calls, grpc_messages
from serving.clients.model_choice import ModelChoice
from serving.clients.model_metadata import ModelMetadata, SignatureSpec, VersionStatus
from serving.clients.retrieval_client import DEFAULT_TIMEOUT_S, BaseRetrievalClient
from serving.clients.retry import RetryPolicy
from serving.clients.tensor import Tensor
from serving.clients.tls import TlsOptions
from serving.clients.transport import Prediction


class RetrievalClient(BaseRetrievalClient):
    """Asks a retrieval model over gRPC.

        with RetrievalClient("127.0.0.1:8500") as client:
            client.recommend("u1", history=["m1", "m2"], features={"age": 30}, k=10)

    Args:
        target: `host:port`, or `dns:///name:port` to ask all addresses of a name in turn.
        model_name: The name under which the model is served.
        model_version: The version to ask; None for the newest.
        version_label: The label of the version to ask, such as `stable`, instead.
        timeout_s: How long a call may take, retries included, where it does not say so itself.
        retry_policy: How often a call is tried again while the server cannot be reached.
        query_id_name: The input that takes the query id; needed only where the model has several
            inputs that could be it.
        candidate_id_name: The input that takes the candidate id; likewise.
        tls: Encrypts the connection; None leaves it plain.
        channel: A channel to use instead of a new one; it is left open.

    Raises:
        InvalidArgumentError: If both a version and a label are given, or a file of `tls` cannot
            be read.
    """

    def __init__(
        self,
        target: str,
        model_name: str = "retrieval",
        *,
        model_version: int | None = None,
        version_label: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry_policy: RetryPolicy = RetryPolicy(),
        query_id_name: str | None = None,
        candidate_id_name: str | None = None,
        tls: TlsOptions | None = None,
        channel: grpc.Channel | None = None,
    ) -> None:
        super().__init__(
            GrpcTransport(
                target, model_name, model_version, channel, version_label=version_label, tls=tls
            ),
            timeout_s=timeout_s,
            retry_policy=retry_policy,
            query_id_name=query_id_name,
            candidate_id_name=candidate_id_name,
        )


class GrpcTransport:
    """The way to a model over gRPC."""

    def __init__(
        self,
        target: str,
        model_name: str,
        model_version: int | None = None,
        channel: grpc.Channel | None = None,
        *,
        version_label: str | None = None,
        tls: TlsOptions | None = None,
    ) -> None:
        self._model = ModelChoice(model_name, model_version, version_label)
        self._owns_channel = channel is None
        self._channel = channel or grpc_calls.make_channel(grpc, target, tls)
        self._predict = grpc_calls.bind(self._channel, grpc_calls.PREDICT)
        self._get_metadata = grpc_calls.bind(self._channel, grpc_calls.GET_MODEL_METADATA)
        self._get_status = grpc_calls.bind(self._channel, grpc_calls.GET_MODEL_STATUS)

    def predict(
        self, signature: SignatureSpec, inputs: Mapping[str, Tensor], timeout_s: float
    ) -> Prediction:
        """Run a signature."""
        request = grpc_messages.predict_request(self._model, signature.name, inputs)
        return grpc_messages.read_prediction(call(self._predict, request, timeout_s))

    def metadata(self, timeout_s: float) -> ModelMetadata:
        """Describe the model's signatures."""
        request = grpc_messages.metadata_request(self._model)
        return grpc_messages.read_metadata(call(self._get_metadata, request, timeout_s))

    def status(self, timeout_s: float) -> list[VersionStatus]:
        """Tell the states of the model's versions."""
        request = grpc_messages.status_request(self._model)
        return grpc_messages.read_status(call(self._get_status, request, timeout_s))

    def close(self) -> None:
        """Close the channel unless it is the caller's."""
        if self._owns_channel:
            self._channel.close()


def call(method: Callable[..., Any], request: Any, timeout_s: float) -> Any:
    """Call a method of the API and wait.

    Raises:
        ServingError: As the server or the connection reports it.
    """
    try:
        return method(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise grpc_calls.as_serving_error(error) from error
