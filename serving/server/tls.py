"""TLS for gRPC, from TensorFlow Serving's `ssl_config_file`.

References:
    `BuildServerCredentials` in tensorflow_serving/model_servers/server.cc.
"""

from __future__ import annotations

import grpc

from serving.server.config_files import SSLConfig, read_text_proto
from serving.server.startup import StartupError

_FLAG = "--ssl_config_file"


def read_credentials(path: str) -> grpc.ServerCredentials:
    """Return the credentials that a file describes.

    The file holds the PEM texts themselves, not the names of files. `client_verify` asks clients
    for a certificate of `custom_ca`.

    Raises:
        StartupError: If something is missing or no PEM text.
    """
    config = read_text_proto(path, SSLConfig(), _FLAG)
    for name in ("server_key", "server_cert"):
        _check_pem(name, getattr(config, name), path)
    if config.custom_ca or config.client_verify:
        _check_pem("custom_ca", config.custom_ca, path)
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def _check_pem(name: str, text: str, path: str) -> None:
    if "-----BEGIN " not in text:
        raise StartupError(
            f"{_FLAG}: {name} in {path} must be a PEM text with \\n for its line ends, not the "
            "name of a file"
        )
