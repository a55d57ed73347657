"""TLS options of the clients."""

from __future__ import annotations

import dataclasses
import os
import ssl
from pathlib import Path

import grpc

from serving.errors import InvalidArgumentError

FilePath = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class TlsOptions:
    """Certificates for TLS, or for mutual TLS if a client certificate is given.

    Attributes:
        root_certificates: PEM file with the trusted root certificates; by default gRPC's own for
            gRPC, and the system's for REST.
        client_certificate: PEM file with this client's certificate chain, for mutual TLS.
        client_key: PEM file with the private key of `client_certificate`.
        server_name: The name in the server's certificate, if it differs from the host name.

    Raises:
        InvalidArgumentError: If only one of `client_certificate` and `client_key` is given.
    """

    root_certificates: FilePath | None = None
    client_certificate: FilePath | None = None
    client_key: FilePath | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.client_certificate is None) != (self.client_key is None):
            raise InvalidArgumentError(
                "Pass client_certificate and client_key together, or neither of them"
            )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials of a gRPC channel."""
        return grpc.ssl_channel_credentials(
            root_certificates=_content("root_certificates", self.root_certificates),
            private_key=_content("client_key", self.client_key),
            certificate_chain=_content("client_certificate", self.client_certificate),
        )

    def channel_options(self) -> tuple[tuple[str, str], ...]:
        """Return the gRPC channel options that set `server_name`."""
        if self.server_name is None:
            return ()
        return (("grpc.ssl_target_name_override", self.server_name),)

    def ssl_context(self) -> ssl.SSLContext:
        """Return the SSL context of a connection; the caller has to pass `server_name` itself."""
        try:
            context = ssl.create_default_context(cafile=self.root_certificates)
            if self.client_certificate is not None:
                context.load_cert_chain(self.client_certificate, self.client_key)
        except OSError as error:
            files = [self.root_certificates, self.client_certificate, self.client_key]
            named = ", ".join(os.fspath(file) for file in files if file is not None)
            raise InvalidArgumentError(f"Cannot use {named} for TLS: {error}") from error
        return context


def _content(option: str, file: FilePath | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"{option}: cannot read {file}: {error.strerror}") from error
