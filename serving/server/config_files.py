"""Readers of TensorFlow Serving's configuration files, in protobuf's text format.

The message of the model config file is in the package `tensorflow-serving-api`. The other messages
are declared in `config_files.proto`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.errors import StartupError
from serving.server import event_log
from serving.server.batching import BatchingOptions
from serving.server.config_files_pb2 import BatchingParameters, MonitoringConfig, SSLConfig
from serving.server.flags import ServerFlags
from serving.server.metrics import DEFAULT_PATH

# The other fields of BatchingParameters control the wait for more requests, which does not exist
# in this server.
_USED_BATCHING_FIELDS = frozenset(
    ["max_batch_size", "max_enqueued_batches", "num_batch_threads", "pad_variable_length_inputs"]
)


def read_model_config(path: str) -> Any:
    """Read the `ModelServerConfig` in the file of `--model_config_file`."""
    return _read(path, model_server_config_pb2.ModelServerConfig(), "--model_config_file")


def read_batching_options(flags: ServerFlags) -> BatchingOptions:
    """Return the batching options for `--enable_batching` and `--batching_parameters_file`."""
    options = BatchingOptions(is_enabled=flags.enable_batching)
    path = flags.batching_parameters_file
    if path is None:
        return options
    flag = "--batching_parameters_file"
    if not flags.enable_batching:
        raise StartupError(f"{flag} is set without setting --enable_batching")
    parameters = _read(path, BatchingParameters(), flag)
    numbers = {
        name: getattr(parameters, name).value
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads")
        if parameters.HasField(name)
    }
    for name, value in numbers.items():
        if value < 1:
            raise StartupError(f"{flag}: {name} must be at least 1, but is {value} in {path}")
    unused = {field.name for field, _ in parameters.ListFields()} - _USED_BATCHING_FIELDS
    if unused:
        event_log.warning("batching_parameters_ignored", fields=",".join(sorted(unused)))
    rows = numbers.get("max_batch_size", options.max_batch_rows)
    batches = numbers.get("max_enqueued_batches")
    return dataclasses.replace(
        options,
        max_batch_rows=rows,
        max_request_rows=numbers.get("max_batch_size"),
        max_waiting=options.max_waiting if batches is None else batches * rows,
        num_threads=numbers.get("num_batch_threads", options.num_threads),
        pads_inputs=parameters.pad_variable_length_inputs,
    )


def read_metrics_path(path: str | None) -> str | None:
    """Read the URL path of the Prometheus page from the file of `--monitoring_config_file`."""
    if path is None:
        return None
    config = _read(path, MonitoringConfig(), "--monitoring_config_file").prometheus_config
    return (config.path or DEFAULT_PATH) if config.enable else None


def read_credentials(path: str | None) -> grpc.ServerCredentials | None:
    """Read the TLS credentials from the file of `--ssl_config_file`; return None without a file.

    The file contains the PEM texts themselves, not file names. With `client_verify`, clients must
    present a certificate that is signed by `custom_ca`.

    References:
        `BuildServerCredentials` in tensorflow_serving/model_servers/server.cc.
    """
    if path is None:
        return None
    config = _read(path, SSLConfig(), "--ssl_config_file")
    needed = ["server_key", "server_cert"]
    if config.custom_ca or config.client_verify:
        needed.append("custom_ca")
    for name in needed:
        if "-----BEGIN " not in getattr(config, name):
            raise StartupError(
                f"--ssl_config_file: {name} in {path} must be a PEM text with \\n as line ends, "
                "not a file name"
            )
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def _read(path: str, message: Any, flag: str) -> Any:
    try:
        return text_format.Parse(Path(path).read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{flag}: cannot read {path}: {error}") from error
    except text_format.ParseError as error:
        raise StartupError(
            f"{flag}: {path} is not a {message.DESCRIPTOR.name} in protobuf's text format: {error}"
        ) from error
