"""Encrypted connections, with and without a certificate of the client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.clients import (
    AsyncRetrievalClient,
    RestRetrievalClient,
    RetrievalClient,
    RetryPolicy,
    TlsOptions,
    messages,
    messages_pb2,
)
from serving.errors import InvalidArgumentError, ServingError, UnavailableError
from serving.loadtest import LoadPlan, drive
from tests.serving.clients.fake_server import fake_rest_server, fake_server, recommendations

NO_RETRY = RetryPolicy(max_attempts=1)


def options(certificates: Path, *, client: bool = False, **more: Any) -> TlsOptions:
    if client:
        more |= {
            "client_certificate": certificates / "client.pem",
            "client_key": certificates / "client.key",
        }
    return TlsOptions(certificates / "ca.pem", server_name="retrieval.test", **more)


@pytest.fixture(params=["gRPC", "gRPC asyncio", "REST"])
def ask(
    request: pytest.FixtureRequest, certificates: Path
) -> Iterator[Callable[[TlsOptions, bool], Any]]:
    """Return a function that asks a server for its status, with mutual TLS or without."""
    if request.param == "REST":
        yield lambda tls, mutual: _ask_rest(certificates, tls, mutual)
    elif request.param == "gRPC":
        yield lambda tls, mutual: _ask_grpc(certificates, tls, mutual)
    else:
        yield lambda tls, mutual: asyncio.run(_ask_async(certificates, tls, mutual))


def _grpc_server(certificates: Path, mutual: bool) -> Any:
    credentials = grpc.ssl_server_credentials(
        [((certificates / "server.key").read_bytes(), (certificates / "server.pem").read_bytes())],
        (certificates / "ca.pem").read_bytes() if mutual else None,
        require_client_auth=mutual,
    )
    answers = {
        messages.GET_MODEL_STATUS: lambda request, context: messages_pb2.GetModelStatusResponse(),
        messages.PREDICT: lambda request, context: recommendations("a"),
    }
    return fake_server(answers, credentials=credentials)


def _ask_grpc(certificates: Path, tls: TlsOptions, mutual: bool) -> Any:
    with (
        _grpc_server(certificates, mutual) as port,
        RetrievalClient(f"127.0.0.1:{port}", tls=tls, retry_policy=NO_RETRY) as client,
    ):
        return client.status()


async def _ask_async(certificates: Path, tls: TlsOptions, mutual: bool) -> Any:
    with _grpc_server(certificates, mutual) as port:
        target = f"127.0.0.1:{port}"
        async with AsyncRetrievalClient(target, tls=tls, retry_policy=NO_RETRY) as client:
            return await client.status()


def _ask_rest(certificates: Path, tls: TlsOptions, mutual: bool) -> Any:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    if mutual:
        context.load_verify_locations(certificates / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    with fake_rest_server(context=context) as port:
        url = f"https://127.0.0.1:{port}"
        with RestRetrievalClient(url, tls=tls, retry_policy=NO_RETRY) as client:
            return client.status()


def test_a_trusted_server_answers(ask: Callable[..., Any], certificates: Path) -> None:
    assert ask(options(certificates), False) == []


@pytest.mark.parametrize(
    ("root", "name"),
    [("client.pem", "retrieval.test"), ("ca.pem", "another.test")],
    ids=["another authority", "another name"],
)
def test_a_server_that_is_not_trusted_is_not_asked(
    ask: Callable[..., Any], certificates: Path, root: str, name: str
) -> None:
    with pytest.raises(UnavailableError):
        ask(TlsOptions(certificates / root, server_name=name), False)


def test_mutual_tls_needs_the_clients_certificate(
    ask: Callable[..., Any], certificates: Path
) -> None:
    assert ask(options(certificates, client=True), True) == []
    with pytest.raises(ServingError):
        ask(options(certificates), True)


def test_the_load_generator_encrypts(certificates: Path) -> None:
    with _grpc_server(certificates, mutual=False) as port:
        plan = LoadPlan(
            f"127.0.0.1:{port}", [b""], 0.2, concurrency=2, warmup_s=0.0, tls=options(certificates)
        )
        result = asyncio.run(drive(plan))
    assert result.answered_in_time > 0
    assert not result.errors


def test_files_that_cannot_be_used_are_named(certificates: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent.pem"
    with pytest.raises(InvalidArgumentError, match=r"root_certificates: cannot read .*absent\.pem"):
        RetrievalClient("127.0.0.1:1", tls=TlsOptions(absent))
    with pytest.raises(InvalidArgumentError, match=r"Cannot use .*absent\.pem for TLS"):
        RestRetrievalClient("https://127.0.0.1:1", tls=TlsOptions(absent))
    with pytest.raises(InvalidArgumentError, match="client_key together"):
        TlsOptions(client_key=certificates / "client.key")
