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
    """TLS, or mutual TLS with a client certificate.

    Attributes:
        root_certificates: PEM file of the authorities to trust; by default those of the library
            (gRPC's own list, or the system's for REST).
        client_certificate: PEM file with this client's certificate chain, for mutual TLS.
        client_key: PEM file with its private key.
        server_name: The name in the server's certificate if it is not the host's.
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
        """Return the credentials of a gRPC channel.

        Raises:
            InvalidArgumentError: If a file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_content("root_certificates", self.root_certificates),
            private_key=_content("client_key", self.client_key),
            certificate_chain=_content("client_certificate", self.client_certificate),
        )

    def channel_options(self) -> tuple[tuple[str, str], ...]:
        """Return the channel options that go with the credentials."""
        if self.server_name is None:
            return ()
        return (("grpc.ssl_target_name_override", self.server_name),)

    def ssl_context(self) -> ssl.SSLContext:
        """Return the context of an HTTPS connection, which does not include `server_name`.

        Raises:
            InvalidArgumentError: If a file cannot be read or contains no certificate or key.
        """
        try:
            context = ssl.create_default_context(
                cafile=None if self.root_certificates is None else os.fspath(self.root_certificates)
            )
            if self.client_certificate is not None:
                context.load_cert_chain(
                    os.fspath(self.client_certificate), os.fspath(self.client_key or "")
                )
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
