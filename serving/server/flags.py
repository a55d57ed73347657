"""The server's command-line flags, named as in `tensorflow_model_server` if they exist there."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

AUTO_PORT = -1
"""Take a free port. 0 means "off", as in TensorFlow Serving."""

MAX_PORT = 65535


def _port(text: str) -> int:
    if text == "auto":
        return AUTO_PORT
    if text.isdecimal() and int(text) <= MAX_PORT:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be 'auto' or a number up to {MAX_PORT}, got {text!r}")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return value


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be an integer, got {text!r}") from error


def _at_least(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = _integer(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(
                f"must be an integer of at least {minimum}, got {text!r}"
            )
        return value

    return parse


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    arguments: list[tuple[str, int | str]] = []
    for argument in filter(None, text.split(",")):
        key, equals, value = argument.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"must be KEY=VALUE,..., got {argument!r}")
        is_number = value.removeprefix("-").isdecimal()
        arguments.append((key, int(value) if is_number else value))
    return tuple(arguments)


def _flag(default: Any, metavar: str, parse: Callable[[str], Any], help_text: str) -> Any:
    metadata = {"type": parse, "metavar": metavar, "help": help_text}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class ServerFlags:
    """The values of the command-line flags, with their parsers and help texts."""

    model_base_path: str | None = _flag(
        None, "FOLDER", str, "Folder with one sub-folder per version, named by its number."
    )
    model_name: str = _flag("default", "NAME", str, "Name under which the model is served.")
    model_config_file: str | None = _flag(
        None, "FILE", str,
        "Models, versions and labels: a ModelServerConfig in protobuf's text format. Replaces "
        "--model_base_path and --model_name.",
    )  # fmt: skip
    model_config_file_poll_wait_seconds: float = _flag(
        0.0, "SECONDS", _seconds,
        "Pause between two reads of --model_config_file; 0 reads it only at start-up.",
    )  # fmt: skip
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "true|false", _boolean,
        "Allow a new label to point to a version that is not available yet.",
    )  # fmt: skip
    port: int = _flag(8500, "PORT", _port, "gRPC port; 0 turns gRPC off, 'auto' takes a free port.")
    rest_api_port: int = _flag(
        8501, "PORT", _port, "REST port; 0 turns REST off, 'auto' takes a free port."
    )
    bind_address: str = _flag("127.0.0.1", "ADDRESS", str, "Address to listen on; 0.0.0.0 for all.")
    file_system_poll_wait_seconds: float = _flag(
        1.0, "SECONDS", _seconds,
        "Pause between two polls of the base paths; 0 polls only at start-up.",
    )  # fmt: skip
    max_num_load_retries: int = _flag(
        5, "N", _at_least(0),
        "Retries of a failed load whose folder is unchanged. A changed folder is always tried "
        "again; at start-up each model gets one try.",
    )  # fmt: skip
    load_retry_interval_micros: int = _flag(
        60_000_000, "N", _at_least(0), "Pause before each retry."
    )
    rest_api_timeout_in_ms: int = _flag(
        30_000, "N", _at_least(1),
        "Maximum time of a REST request; after that it is answered with 504.",
    )  # fmt: skip
    tensorflow_intra_op_parallelism: int = _flag(
        0, "N", _integer, "Threads for one operation; 0 lets TensorFlow choose."
    )
    # A retrieval model is a chain of small operations. Running them in a thread pool took 60 to
    # 100 us of the 270 us of a request (5 candidates, 2 CPUs).
    tensorflow_inter_op_parallelism: int = _flag(
        -1, "N", _integer,
        "Operations of one request that run at the same time; 0 lets TensorFlow choose, a negative "
        "number runs them one after the other in the request's thread.",
    )  # fmt: skip
    enable_batching: bool = _flag(
        True, "true|false", _boolean,
        "Let waiting requests for the same computation share one run. No request waits for others.",
    )  # fmt: skip
    batching_parameters_file: str | None = _flag(
        None, "FILE", str, "Limits of the batches: a BatchingParameters in protobuf's text format."
    )
    enable_model_warmup: bool = _flag(
        True, "true|false", _boolean,
        "Replay assets.extra/tf_serving_warmup_requests before a version becomes available.",
    )  # fmt: skip
    shutdown_grace_seconds: float = _flag(
        10.0, "SECONDS", _seconds, "Time for running requests to finish after SIGTERM or SIGINT."
    )
    monitoring_config_file: str | None = _flag(
        None, "FILE", str,
        "A MonitoringConfig in protobuf's text format; turns on the Prometheus page on the REST "
        "port.",
    )  # fmt: skip
    enable_grpc_healthcheck_service: bool = _flag(
        False, "true|false", _boolean,
        'Offer grpc.health.v1 for "", "ModelService" and "PredictionService".',
    )  # fmt: skip
    ssl_config_file: str | None = _flag(
        None, "FILE", str,
        "An SSLConfig in protobuf's text format: TLS for gRPC. REST stays plain text.",
    )  # fmt: skip
    grpc_channel_arguments: tuple[tuple[str, int | str], ...] = _flag(
        (), "KEY=VALUE,...", _channel_arguments,
        "gRPC settings, such as grpc.max_concurrent_streams=100.",
    )  # fmt: skip
    max_request_bytes: int = _flag(
        2**31 - 1, "N", _at_least(1),
        "Larger requests are refused with RESOURCE_EXHAUSTED, over REST with 413.",
    )  # fmt: skip
    log_format: str = _flag("text", "text|json", str, "Format of the log lines.")
    ready_file: str | None = _flag(
        None, "FILE", str,
        "File to write once the models are available: JSON with grpc_port, rest_port and pid; the "
        "port of an API that is off is null.",
    )  # fmt: skip
    parent_pid: int | None = _flag(
        None, "PID", _at_least(1),
        "Stop, as with SIGTERM, when the parent process is no longer this one.",
    )  # fmt: skip


def parse_flags(argv: Sequence[str] | None = None) -> ServerFlags:
    """Parse the command line. If a flag is invalid, print an error and exit with status 2.

    Args:
        argv: The arguments without the program's name; `sys.argv[1:]` if None.
    """
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        description="Serve a SavedModel over TensorFlow Serving's gRPC and REST APIs.",
        epilog="Example: python -m serving.server --model_name=retrieval "
        "--model_base_path=runs/movielens_100k/serving/retrieval",
        allow_abbrev=False,
    )
    for field in dataclasses.fields(ServerFlags):
        options = dict(field.metadata)
        if field.default not in (None, ()):
            options["help"] += f" Default: {str(field.default).lower()}."
        parser.add_argument(f"--{field.name}", default=field.default, **options)
    flags = ServerFlags(**vars(parser.parse_args(argv)))
    if flags.model_base_path is None and flags.model_config_file is None:
        parser.error("one of --model_base_path and --model_config_file is required")
    if flags.port == 0 and flags.rest_api_port == 0:
        parser.error("--port and --rest_api_port must not both be 0: nothing would be served")
    if flags.port > 0 and flags.port == flags.rest_api_port:
        parser.error(f"--port and --rest_api_port must differ, but both are {flags.port}")
    if flags.log_format not in ("text", "json"):
        parser.error(f"--log_format must be text or json, but is {flags.log_format!r}")
    return flags
