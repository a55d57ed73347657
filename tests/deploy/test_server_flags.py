"""The servers of every deployment accept their flags and configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.server.config_files_pb2 import BatchingParameters, MonitoringConfig, SSLConfig
from serving.server.flags import parse_flags

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PLACES = ["compose", "Kubernetes"]

# The flags of tensorflow_model_server 2.16.1, in the order of model_servers/main.cc.
TENSORFLOW_SERVING_FLAGS = {
    "port", "grpc_socket_path", "rest_api_port", "rest_api_num_threads", "rest_api_timeout_in_ms",
    "rest_api_enable_cors_support", "enable_batching",
    "allow_version_labels_for_unavailable_models", "batching_parameters_file",
    "enable_per_model_batching_parameters", "model_config_file",
    "model_config_file_poll_wait_seconds", "model_name", "model_base_path", "num_load_threads",
    "num_unload_threads", "max_num_load_retries", "load_retry_interval_micros",
    "file_system_poll_wait_seconds", "flush_filesystem_caches", "tensorflow_session_parallelism",
    "tensorflow_session_config_file", "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism", "use_alts_credentials", "ssl_config_file",
    "platform_config_file", "per_process_gpu_memory_fraction", "saved_model_tags",
    "grpc_channel_arguments", "grpc_max_threads", "enable_model_warmup",
    "num_request_iterations_for_warmup", "version", "monitoring_config_file",
    "remove_unused_fields_from_bundle_metagraph", "prefer_tflite_model", "num_tflite_pools",
    "num_tflite_interpreters_per_pool", "enable_signature_method_name_check",
    "xla_cpu_compilation_enabled", "enable_profiler", "thread_pool_factory_config_file",
    "mixed_precision", "skip_initialize_tpu", "enable_grpc_healthcheck_service",
}  # fmt: skip


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return content


def compose(name: str) -> list[str]:
    command: list[str] = read(name)["services"]["retrieval"]["command"]
    return command


def kubernetes(name: str) -> list[str]:
    (container,) = read(f"kubernetes/{name}")["spec"]["template"]["spec"]["containers"]
    args: list[str] = container["args"]
    return args


@pytest.mark.parametrize(
    "flags", [compose("compose.stock.yaml"), kubernetes("stock/deployment.yaml")], ids=PLACES
)
def test_tensorflow_serving_has_the_flags(flags: list[str]) -> None:
    for flag in flags:
        name, equals, value = flag.partition("=")
        assert name.removeprefix("--") in TENSORFLOW_SERVING_FLAGS
        assert equals
        assert value


@pytest.mark.parametrize(
    "flags", [compose("compose.yaml"), kubernetes("deployment.yaml")], ids=PLACES
)
def test_the_embedded_server_has_the_flags(flags: list[str]) -> None:
    parsed = parse_flags(flags)
    assert parsed.bind_address == "0.0.0.0"
    for flag in flags:
        name, _, value = flag.partition("=")
        held = getattr(parsed, name.removeprefix("--"))
        if isinstance(held, tuple):
            held = ",".join(f"{key}={number}" for key, number in held)
        assert str(held).lower() in (value, f"{value}.0")


@pytest.mark.parametrize("name", ["deployment.yaml", "stock/deployment.yaml"])
def test_pods_that_the_autoscaler_adds_get_grpc_traffic(name: str) -> None:
    # A connection that never ends stays with the pods of its first look-up.
    (argument,) = [
        flag for flag in kubernetes(name) if flag.startswith("--grpc_channel_arguments=")
    ]
    arguments = parse_flags(["--model_base_path=/m", argument]).grpc_channel_arguments
    assert arguments == (("grpc.max_connection_age_ms", 300_000),)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models.config", ModelServerConfig()),
        ("monitoring.config", MonitoringConfig()),
        ("batching.config", BatchingParameters()),
        ("ssl.config", SSLConfig()),
    ],
)
def test_a_configuration_file_parses_as_its_message(name: str, message: Any) -> None:
    text_format.Parse((DEPLOY / "config" / name).read_text(encoding="utf-8"), message)
    assert message.ListFields()
