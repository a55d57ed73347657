"""How a client proves and checks identities on an encrypted connection."""

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
    """TLS, and mutual TLS where a client certificate is given.

    Attributes:
        root_certificates: PEM file of the authorities that may have signed the server's
            certificate; None for those that the library trusts (gRPC brings its own list, REST
            takes the system's).
        client_certificate: PEM file with this client's certificate chain, for a server that asks
            for one.
        client_key: PEM file with the private key to it.
        server_name: The name that the server's certificate must carry, where it is not the host
            that the client connects to.
    """

    root_certificates: FilePath | None = None
    client_certificate: FilePath | None = None
    client_key: FilePath | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.client_certificate is None) != (self.client_key is None):
            raise InvalidArgumentError(
                "client_certificate and client_key go together: give both or neither"
            )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return gRPC's form of the options.

        Raises:
            InvalidArgumentError: If a file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_content("root_certificates", self.root_certificates),
            private_key=_content("client_key", self.client_key),
            certificate_chain=_content("client_certificate", self.client_certificate),
        )

    def channel_options(self) -> tuple[tuple[str, str], ...]:
        """Return what gRPC takes beside the credentials."""
        if self.server_name is None:
            return ()
        return (("grpc.ssl_target_name_override", self.server_name),)

    def ssl_context(self) -> ssl.SSLContext:
        """Return the standard library's form of the options, without `server_name`.

        Raises:
            InvalidArgumentError: If a file cannot be read or holds no certificate or key.
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
