"""What the blocking and the asyncio gRPC clients share: the methods, and how a channel is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from serving.clients import wire
from serving.clients.tls import TlsOptions
from serving.errors import ServingError, UnavailableError, from_grpc_code

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 2**31 - 1),
    ("grpc.max_send_message_length", 2**31 - 1),
    # The client's own policy retries; two layers would multiply the attempts.
    ("grpc.enable_retries", 0),
    # Else a server that was away for a moment fails every call for a second or more: gRPC's own
    # pause before it connects again, which no retry shortens.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection to each server; without this gRPC shares it with every other client of the
    # process, whose streams would queue behind each other.
    ("grpc.use_local_subchannel_pool", 1),
)
# gRPC's names for several addresses: replicas, to be asked in turn. A bare `host:port` is one
# server and keeps gRPC's default, which connects again as soon as somebody asks.
_REPLICAS = ("dns:", "ipv4:", "ipv6:")


class Method(NamedTuple):
    """One method of the API."""

    path: str
    request: Any
    response: Any


PREDICT = Method(wire.PREDICT, wire.PredictRequest, wire.PredictResponse)
GET_MODEL_METADATA = Method(
    wire.GET_MODEL_METADATA, wire.GetModelMetadataRequest, wire.GetModelMetadataResponse
)
GET_MODEL_STATUS = Method(
    wire.GET_MODEL_STATUS, wire.GetModelStatusRequest, wire.GetModelStatusResponse
)
RELOAD_CONFIG = Method(wire.RELOAD_CONFIG, wire.ReloadConfigRequest, wire.ReloadConfigResponse)


def make_channel(library: Any, target: str, tls: TlsOptions | None) -> Any:
    """Return a channel of `grpc` or of `grpc.aio`.

    Args:
        library: The module to make it with.
        target: `host:port`, or `dns:///name:port` for all addresses of a name.
        tls: None for a connection without encryption.

    Raises:
        InvalidArgumentError: If a file of `tls` cannot be read.
    """
    options: tuple[tuple[str, Any], ...] = _CHANNEL_OPTIONS
    if target.startswith(_REPLICAS):
        options += (("grpc.lb_policy_name", "round_robin"),)
    if tls is None:
        return library.insecure_channel(target, options=options)
    options += tls.channel_options()
    return library.secure_channel(target, tls.channel_credentials(), options=options)


def bind(channel: Any, method: Method) -> Callable[..., Any]:
    """Return a method of the API as a call on a channel."""
    call: Callable[..., Any] = channel.unary_unary(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )
    return call


def as_serving_error(error: grpc.RpcError) -> ServingError:
    """Return the error of a failed call."""
    code, message = error.code().value[0], error.details() or ""
    if error.code() is grpc.StatusCode.CANCELLED:
        # Nobody here cancels a call and then asks for its error: the server did, or a proxy. One
        # that ends drops so the calls that came in at its last moment.
        return UnavailableError(f"The call was cancelled on the way or by the server: {message}")
    return from_grpc_code(code, message)
