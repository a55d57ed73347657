from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.errors import StartupError
from serving.server import config_files
from serving.server.batching import BatchingOptions
from serving.server.flags import parse_flags


def batching_options(*flags: str) -> BatchingOptions:
    return config_files.read_batching_options(parse_flags(["--model_base_path=/m", *flags]))


def from_batching_file(path: str) -> BatchingOptions:
    return batching_options(f"--batching_parameters_file={path}")


def test_the_batching_file_sets_the_options(tmp_path: Path) -> None:
    file = tmp_path / "batching.config"
    file.write_text(
        "max_batch_size { value: 64 } batch_timeout_micros { value: 500 }\n"
        "max_enqueued_batches { value: 100 } num_batch_threads { value: 2 }\n"
        "pad_variable_length_inputs: true"
    )
    assert from_batching_file(str(file)) == BatchingOptions(
        max_batch_rows=64, max_request_rows=64, max_waiting=6400, num_threads=2, pads_inputs=True
    )


def test_the_monitoring_file_gives_the_path_of_the_page(tmp_path: Path) -> None:
    file = tmp_path / "monitoring.config"
    file.write_text('prometheus_config { enable: true path: "/metrics" }')
    assert config_files.read_metrics_path(str(file)) == "/metrics"
    file.write_text("prometheus_config { enable: true }")
    assert config_files.read_metrics_path(str(file)) == "/monitoring/prometheus/metrics"
    file.write_text("prometheus_config { enable: false }")
    assert config_files.read_metrics_path(str(file)) is None


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (from_batching_file, "max_batch_sise { value: 1 }", "is not a BatchingParameters .* 1:1"),
        (
            from_batching_file,
            "num_batch_threads { value: 0 }",
            "num_batch_threads must be",
        ),
        (config_files.read_model_config, "model_config_list {", "is not a ModelServerConfig"),
        (
            config_files.read_credentials,
            'server_cert: "-----BEGIN CERTIFICATE-----"',
            "server_key in .* must be a PEM text",
        ),
        (
            config_files.read_credentials,
            'server_key: "-----BEGIN K" server_cert: "-----BEGIN C" client_verify: true',
            "custom_ca in .* must be a PEM text",
        ),
    ],
)
def test_an_invalid_file_is_one_clear_error(
    tmp_path: Path, read: Callable[[str], Any], text: str, message: str
) -> None:
    file = tmp_path / "some.config"
    file.write_text(text)
    with pytest.raises(StartupError, match=message):
        read(str(file))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="--batching_parameters_file: cannot read"):
        from_batching_file(f"{tmp_path}/x")


def test_a_batching_file_without_batching_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="without setting --enable_batching"):
        batching_options("--enable_batching=false", f"--batching_parameters_file={tmp_path}/x")
