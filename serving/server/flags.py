"""The flags of the server, named as those of `tensorflow_model_server` where it has them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

AUTO_PORT = -1
"""Take a free port. TensorFlow Serving has no such choice; 0 means "off" there and here."""

MAX_PORT = 65535

# Of tensorflow_model_server, for whoever keeps its command line: here models load one by one, a
# connection over REST has a thread, gRPC an event loop, and files are read once.
_NOT_HEEDED = (
    "num_load_threads",
    "num_unload_threads",
    "rest_api_num_threads",
    "grpc_max_threads",
    "flush_filesystem_caches",
)


@dataclasses.dataclass(frozen=True)
class ServerFlags:
    """The parsed flags; the option help below says what each one means."""

    model_base_path: str | None
    model_name: str
    model_config_file: str | None
    model_config_file_poll_wait_seconds: float
    allow_version_labels_for_unavailable_models: bool
    force_allow_any_version_labels_for_unavailable_models: bool
    port: int
    rest_api_port: int
    bind_address: str
    file_system_poll_wait_seconds: float
    max_num_load_retries: int
    load_retry_interval_micros: int
    rest_api_timeout_in_ms: int
    tensorflow_intra_op_parallelism: int
    tensorflow_inter_op_parallelism: int
    num_session_threads: int | None
    enable_batching: bool
    batching_parameters_file: str | None
    padded_inputs: tuple[str, ...]
    enable_model_warmup: bool
    shutdown_grace_seconds: float
    monitoring_config_file: str | None
    enable_grpc_healthcheck_service: bool
    ssl_config_file: str | None
    grpc_channel_arguments: tuple[tuple[str, int | str], ...]
    max_request_bytes: int
    log_format: str
    ready_file: str | None
    parent_pid: int | None
    not_heeded: tuple[str, ...] = ()


def parse_flags(argv: Sequence[str] | None = None) -> ServerFlags:
    """Parse the command line.

    Args:
        argv: The arguments without the program's name; `sys.argv[1:]` if None.

    Returns:
        The flags. A wrong one ends the process with status 2 and a usage text, as argparse does.
    """
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        description="Serves a SavedModel over TensorFlow Serving's gRPC and REST APIs.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--model_base_path",
        default=None,
        help="Folder with one sub-folder a version, named by its number.",
    )
    add("--model_name", default="default", help="Name under which the model is served.")
    add(
        "--model_config_file",
        default=None,
        help=(
            "Models, versions and labels, as a ModelServerConfig in protobuf's text format; "
            "instead of --model_base_path and --model_name."
        ),
    )
    add(
        "--model_config_file_poll_wait_seconds",
        type=_non_negative,
        default=0.0,
        help="Pause between two looks at --model_config_file; 0 reads it once, at start-up.",
    )
    add(
        "--allow_version_labels_for_unavailable_models",
        type=_boolean,
        default=False,
        help="Let a new label stand for a version that is not available yet.",
    )
    add(
        "--force_allow_any_version_labels_for_unavailable_models",
        type=_boolean,
        default=False,
        help="Let any label stand for a version that is not available.",
    )
    add(
        "--port",
        type=_port,
        default=8500,
        help="gRPC port; 0 switches gRPC off, 'auto' takes a free port.",
    )
    add(
        "--rest_api_port",
        type=_port,
        default=8501,
        help="REST port; 0 switches REST off, 'auto' takes a free port.",
    )
    add("--bind_address", default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all.")
    add(
        "--file_system_poll_wait_seconds",
        type=_non_negative,
        default=1.0,
        help="Pause between two looks at the base paths; 0 looks once, at start-up.",
    )
    add(
        "--max_num_load_retries",
        type=_whole,
        default=5,
        help=(
            "Tries after a load that failed, though nothing has changed since; a changed folder is "
            "always tried again. The first load of a model at start-up has one try."
        ),
    )
    add(
        "--load_retry_interval_micros",
        type=_whole,
        default=60_000_000,
        help="Pause before each of these tries.",
    )
    add(
        "--rest_api_timeout_in_ms",
        type=_integer,
        default=30_000,
        help="Longest time a REST request may take before it is answered with 504.",
    )
    add(
        "--tensorflow_intra_op_parallelism",
        type=_integer,
        default=0,
        help="Threads for one operation; 0 leaves the choice to TensorFlow.",
    )
    add(
        "--tensorflow_inter_op_parallelism",
        type=_integer,
        # A retrieval model is a chain of small operations; handing each to a pool cost 60 to 100
        # of 270 us a request (5 candidates, 2 CPUs). Requests run beside each other anyway.
        default=-1,
        help=(
            "Operations of one request that run at once; 0 leaves the choice to TensorFlow, a "
            "negative number runs them one after the other in the request's thread."
        ),
    )
    add(
        "--num_session_threads",
        type=_positive,
        default=None,
        help="Runs at once; default: half of the CPUs, the others read and write requests.",
    )
    add(
        "--enable_batching",
        type=_boolean,
        default=True,
        help=(
            "Let requests that wait for the same computation share one run; none is ever held back "
            "for it. TensorFlow Serving's default is false."
        ),
    )
    add(
        "--batching_parameters_file",
        default=None,
        help="Limits of the batches, as a BatchingParameters in protobuf's text format.",
    )
    add(
        "--padded_inputs",
        type=_names,
        default=(),
        help=(
            'Inputs, with commas between, in which padding with "" or 0 means nothing: requests '
            "share a run though theirs differ in width."
        ),
    )
    add(
        "--enable_model_warmup",
        type=_boolean,
        default=True,
        help="Replay assets.extra/tf_serving_warmup_requests before a version becomes available.",
    )
    add(
        "--shutdown_grace_seconds",
        type=_non_negative,
        default=10.0,
        help="Time that running requests get to finish after SIGTERM or SIGINT.",
    )
    add(
        "--monitoring_config_file",
        default=None,
        help=(
            "A MonitoringConfig in protobuf's text format; switches on the Prometheus page on the "
            "REST port."
        ),
    )
    add(
        "--enable_grpc_healthcheck_service",
        type=_boolean,
        default=False,
        help='Offer grpc.health.v1 for "", "ModelService" and "PredictionService".',
    )
    add(
        "--ssl_config_file",
        default=None,
        help="An SSLConfig in protobuf's text format: TLS for gRPC; REST stays plain.",
    )
    add(
        "--grpc_channel_arguments",
        type=_channel_arguments,
        default=(),
        help="gRPC's own settings, such as grpc.max_concurrent_streams=100, with commas between.",
    )
    add(
        "--max_request_bytes",
        type=_positive,
        default=2**31 - 1,
        help="Longer requests are refused: RESOURCE_EXHAUSTED, over REST 413.",
    )
    add(
        "--log_format",
        choices=("text", "json"),
        default="text",
        help="How a line of the log is written.",
    )
    add(
        "--ready_file",
        default=None,
        help=(
            'File written once the model is available: {"grpc_port": .., "rest_port": .., '
            '"pid": ..}; a port that is off is null.'
        ),
    )
    add(
        "--parent_pid",
        type=_positive,
        default=None,
        help="Stop, as by SIGTERM, when the server's parent process is no longer this one.",
    )
    for name in _NOT_HEEDED:
        add(f"--{name}", default=None, help="Accepted and not heeded: it has no meaning here.")
    values = vars(parser.parse_args(argv))
    not_heeded = tuple(name for name in _NOT_HEEDED if values.pop(name) is not None)
    flags = ServerFlags(**values, not_heeded=not_heeded)
    if flags.model_base_path is None and flags.model_config_file is None:
        parser.error("one of --model_base_path and --model_config_file is required")
    if flags.port == 0 and flags.rest_api_port == 0:
        parser.error("--port and --rest_api_port must not both be 0: nothing would be served")
    if flags.port > 0 and flags.port == flags.rest_api_port:
        parser.error(f"--port and --rest_api_port must differ, both are {flags.port}")
    return flags


def _port(text: str) -> int:
    if text == "auto":
        return AUTO_PORT
    if text.isdecimal() and int(text) <= MAX_PORT:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be 'auto' or a number up to {MAX_PORT}, got {text!r}")


def _non_negative(text: str) -> float:
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


def _whole(text: str) -> int:
    value = _integer(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0, got {text!r}")
    return value


def _positive(text: str) -> int:
    value = _integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return value


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    arguments: list[tuple[str, int | str]] = []
    for argument in filter(None, text.split(",")):
        key, equals, value = argument.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"must be KEY=VALUE,..., got {argument!r}")
        is_number = value.removeprefix("-").isdecimal()
        arguments.append((key, int(value) if is_number else value))
    return tuple(arguments)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")
