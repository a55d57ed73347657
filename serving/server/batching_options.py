"""How requests share runs: from the flags, and from TensorFlow Serving's batching parameters file.

References:
    `BatchingParameters` in tensorflow_serving/servables/tensorflow/session_bundle_config.proto.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from serving.server import event_log
from serving.server.config_files import BatchingParameters, read_text_proto
from serving.server.flags import ServerFlags
from serving.server.startup import StartupError

_FLAG = "--batching_parameters_file"
# What the file may say, and what has no meaning for a batch that never waits for more requests.
_NOT_HEEDED = (
    "batch_timeout_micros",
    "allowed_batch_sizes",
    "thread_pool_name",
    "enable_large_batch_splitting",
    "max_execution_batch_size",
)


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """Sizes and limits.

    Attributes:
        is_enabled: Whether requests share runs at all.
        max_batch_rows: Rows that a shared run has at most; a larger request runs alone.
        max_request_rows: Larger requests are refused; None refuses none.
        max_enqueued_calls: Requests that wait at most; more are refused.
        num_batch_threads: Runs at once.
        padded_inputs: Inputs whose dimensions after the first may differ between requests that
            share a run; the narrower are padded with "" or 0. Only for inputs in which padding
            means nothing.
        pads_all_inputs: Whether that holds for every input.
    """

    is_enabled: bool = True
    max_batch_rows: int = 128
    max_request_rows: int | None = None
    max_enqueued_calls: int = 10_000
    # One half of the CPUs reads and writes requests, the other computes. With a thread for each
    # CPU there is always a free one, and no two requests ever meet in the queue.
    num_batch_threads: int = max(1, (os.cpu_count() or 1) // 2)
    padded_inputs: frozenset[str] = frozenset()
    pads_all_inputs: bool = False

    def pads(self, alias: str) -> bool:
        """Tell whether an input may be padded."""
        return self.pads_all_inputs or alias in self.padded_inputs


def batching_options(flags: ServerFlags) -> BatchingOptions:
    """Return the options that the flags and their file ask for.

    Raises:
        StartupError: If the file cannot be read or says what cannot be.
    """
    options = BatchingOptions(
        is_enabled=flags.enable_batching, padded_inputs=frozenset(flags.padded_inputs)
    )
    if flags.num_session_threads is not None:
        options = dataclasses.replace(options, num_batch_threads=flags.num_session_threads)
    if flags.batching_parameters_file is None:
        return options
    if not flags.enable_batching:
        # The text of tensorflow_model_server.
        raise StartupError("--batching_parameters_file is set without setting --enable_batching")
    return _with_file(options, flags.batching_parameters_file)


def _with_file(options: BatchingOptions, path: str) -> BatchingOptions:
    parameters = read_text_proto(path, BatchingParameters(), _FLAG)
    changes: dict[str, Any] = {}
    if parameters.HasField("max_batch_size"):
        rows = _at_least_one(parameters, "max_batch_size")
        changes |= {"max_batch_rows": rows, "max_request_rows": rows}
    if parameters.HasField("max_enqueued_batches"):
        batches = _at_least_one(parameters, "max_enqueued_batches")
        rows = changes.get("max_batch_rows", options.max_batch_rows)
        changes["max_enqueued_calls"] = batches * rows
    if parameters.HasField("num_batch_threads"):
        changes["num_batch_threads"] = _at_least_one(parameters, "num_batch_threads")
    not_heeded = [field.name for field, _ in parameters.ListFields() if field.name in _NOT_HEEDED]
    if not_heeded:
        event_log.warning("batching_parameters_not_heeded", fields=",".join(not_heeded))
    return dataclasses.replace(
        options, pads_all_inputs=parameters.pad_variable_length_inputs, **changes
    )


def _at_least_one(parameters: Any, name: str) -> int:
    value: int = getattr(parameters, name).value
    if value < 1:
        raise StartupError(f"{_FLAG}: {name} must be at least 1, got {value}")
    return value
