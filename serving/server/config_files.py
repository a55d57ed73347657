"""Reads the configuration files of TensorFlow Serving, in its own text format.

`model_server_config.proto` comes with `tensorflow-serving-api`. The other three messages do not,
and are declared here with the fields that this server heeds or that it has to tell apart.

References:
    session_bundle_config.proto, monitoring_config.proto and ssl_config.proto of TensorFlow Serving.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from serving.server.startup import StartupError

_PACKAGE = "two_tower.model_server"
_TYPES = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
}
_Fields = dict[str, tuple[int, str]]

_MESSAGES: dict[str, _Fields] = {
    "BatchingParameters": {
        "max_batch_size": (1, ".google.protobuf.Int64Value"),
        "batch_timeout_micros": (2, ".google.protobuf.Int64Value"),
        "max_enqueued_batches": (3, ".google.protobuf.Int64Value"),
        "num_batch_threads": (4, ".google.protobuf.Int64Value"),
        "thread_pool_name": (5, ".google.protobuf.StringValue"),
        "allowed_batch_sizes": (6, "repeated int64"),
        "pad_variable_length_inputs": (7, "bool"),
        "enable_large_batch_splitting": (8, ".google.protobuf.BoolValue"),
        "max_execution_batch_size": (9, ".google.protobuf.Int64Value"),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, f".{_PACKAGE}.PrometheusConfig")},
    "SSLConfig": {
        "server_key": (1, "string"),
        "server_cert": (2, "string"),
        "custom_ca": (3, "string"),
        "client_verify": (4, "bool"),
    },
}


def read_text_proto(path: str, message: Any, flag: str) -> Any:
    """Parse a file in protobuf's text format.

    Args:
        path: The file.
        message: An empty message; it is filled.
        flag: The flag that names the file, for the error.

    Returns:
        `message`.

    Raises:
        StartupError: If the file cannot be read or does not parse.
    """
    try:
        return text_format.Parse(Path(path).read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{flag}: cannot read {path}: {error}") from error
    except text_format.ParseError as error:
        raise StartupError(
            f"{flag}: {path} is no {message.DESCRIPTOR.name} in protobuf's text format: {error}"
        ) from error


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="two_tower/model_server/config_files.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, type_name) in fields.items():
            field = message.field.add(name=field_name, number=number)
            is_repeated = type_name.startswith("repeated ")
            field.label = field.LABEL_REPEATED if is_repeated else field.LABEL_OPTIONAL
            scalar = _TYPES.get(type_name.removeprefix("repeated "))
            if scalar is None:
                field.type, field.type_name = field.TYPE_MESSAGE, type_name
            else:
                field.type = scalar
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    # Any: renamed in later protobufs, which the stubs describe.
    factory: Any = message_factory.MessageFactory(pool)
    return {
        name: factory.GetPrototype(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _build()
BatchingParameters = _CLASSES["BatchingParameters"]
MonitoringConfig = _CLASSES["MonitoringConfig"]
SSLConfig = _CLASSES["SSLConfig"]
