"""One signature of a loaded model: its checks, its defaults, and its prepared Session calls.

The checks and texts are those of TensorFlow Serving r2.16 (servables/tensorflow/predict_util.cc)
and of TensorFlow (cc/saved_model/util.cc, `GetInputValues`).
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from serving.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    UnimplementedError,
    from_grpc_code,
)
from serving.server.tensor_codec import (
    Array,
    TensorParsingError,
    data_type_of,
    decode,
    dtype_name,
    numpy_dtype_of,
)

DEFAULT_SIGNATURE = "serving_default"

MakeCallable = Callable[[config_pb2.CallableOptions], Callable[..., list[Array]]]


@dataclasses.dataclass(frozen=True)
class InputInfo:
    """How one input of a signature is fed."""

    alias: str
    feed_name: str
    data_type: int
    dtype: np.dtype[Any] | None


class Signature:
    """A signature that can be run.

    Args:
        definition: The SignatureDef as the model carries it.
        make_callable: Prepares a Session for a list of feeds and fetches.

    Attributes:
        is_batchable: Whether its shapes are those of a computation row by row: the first
            dimension of each input and output is open, and a row of an output has a fixed size.
            An open one could depend on the other rows.
    """

    def __init__(
        self, definition: meta_graph_pb2.SignatureDef, make_callable: MakeCallable
    ) -> None:
        self.definition = definition
        # Sorted by feed name: TensorFlow's DirectSession numbers its arguments in that order, and
        # an error about `arg[1]` has to mean the same input here.
        self.inputs = tuple(
            sorted(
                (
                    InputInfo(alias, info.name, info.dtype, _numpy_dtype(info.dtype))
                    for alias, info in definition.inputs.items()
                ),
                key=lambda info: info.feed_name,
            )
        )
        self._inputs_by_alias = sorted(self.inputs, key=lambda info: info.alias)
        self._sorted_aliases = tuple(info.alias for info in self._inputs_by_alias)
        self._aliases = frozenset(self._sorted_aliases)
        self.outputs: tuple[str, ...] = tuple(sorted(definition.outputs))
        self.is_batchable = bool(definition.inputs) and all(
            [
                *(_has_batch_dimension(info) for info in definition.inputs.values()),
                *(_has_batch_of_fixed_rows(info) for info in definition.outputs.values()),
            ]
        )
        self._defaults = {
            alias: _decode(alias, proto) for alias, proto in definition.defaults.items()
        }
        self._make_callable = make_callable
        self._callables: dict[tuple[str, ...], Callable[..., list[Array]]] = {}
        self._lock = threading.Lock()

    def decode_inputs(self, inputs: Mapping[str, tensor_pb2.TensorProto]) -> dict[str, Array]:
        """Decode the tensors of a request and fill in the signature's defaults.

        Args:
            inputs: The request's tensors by input name.

        Returns:
            One array for each input of the signature.

        Raises:
            InvalidArgumentError: If names are missing, unknown, or a tensor cannot be read.
        """
        if len(inputs) != len(self.inputs):
            self._check_size(inputs)
        elif self._aliases.issubset(inputs):
            return {alias: _decode(alias, inputs[alias]) for alias in self._sorted_aliases}
        arrays: dict[str, Array] = {}
        used: set[str] = set()
        for info in self._inputs_by_alias:
            alias = info.alias
            if alias in inputs:
                arrays[alias] = _decode(alias, inputs[alias])
                used.add(alias)
            elif alias in self._defaults:
                arrays[alias] = self._defaults[alias]
            else:
                raise InvalidArgumentError(
                    f"Signature input alias: {alias}(feed name: {info.feed_name}) not found "
                    "in request and no default value provided. Inputs expected to be in the "
                    f"request {{{_join(inputs)}}}, or default input alias set: "
                    f"{_join(self._defaults)}"
                )
        if len(used) != len(inputs):
            raise InvalidArgumentError(
                f"Inputs contains invalid name. Used request inputs: {_join(used)}, "
                f"request input: {_join(inputs)}"
            )
        return arrays

    def select_outputs(self, output_filter: Sequence[str]) -> tuple[str, ...]:
        """Return the outputs to compute: those asked for, or all.

        Raises:
            InvalidArgumentError: If a name is unknown or comes twice.
        """
        seen: set[str] = set()
        for alias in output_filter:
            if alias not in self.definition.outputs:
                raise InvalidArgumentError(
                    f"output tensor alias not found in signature: {alias} "
                    f"Outputs expected to be in the set {{{','.join(self.outputs)}}}."
                )
            if alias in seen:
                raise InvalidArgumentError(f"duplicate output tensor alias: {alias}")
            seen.add(alias)
        return tuple(sorted(seen)) or self.outputs

    def order_feeds(self, arrays: Mapping[str, Array]) -> list[Array]:
        """Return the arrays as `compute` takes them.

        Args:
            arrays: One array for each input.

        Raises:
            InvalidArgumentError: At the first input, in the order of feed names, of a wrong dtype.
        """
        feeds = [arrays[info.alias] for info in self.inputs]
        for index, (info, feed) in enumerate(zip(self.inputs, feeds, strict=True)):
            if feed.dtype is info.dtype:
                continue
            given = data_type_of(feed)
            if given != info.data_type:
                raise InvalidArgumentError(
                    f"Expects arg[{index}] to be {dtype_name(info.data_type)} but "
                    f"{dtype_name(given)} is provided"
                )
        return feeds

    def compute(self, feeds: Sequence[Array], outputs: tuple[str, ...]) -> list[Array]:
        """Compute `outputs`, in their order.

        Args:
            feeds: What `order_feeds` returned.
            outputs: What `select_outputs` returned.

        Raises:
            ServingError: As the model's operations raise it.
        """
        run = self._callables.get(outputs) or self._prepare(outputs)
        try:
            results = run(*feeds)
        except tf.errors.OpError as error:
            raise from_grpc_code(error.error_code, error.message) from error
        return [_as_array(result) for result in results]

    def _prepare(self, outputs: tuple[str, ...]) -> Callable[..., list[Array]]:
        with self._lock:
            if outputs not in self._callables:
                options = config_pb2.CallableOptions(
                    feed=[info.feed_name for info in self.inputs],
                    fetch=[self.definition.outputs[alias].name for alias in outputs],
                )
                self._callables[outputs] = self._make_callable(options)
            return self._callables[outputs]

    def _check_size(self, inputs: Collection[str]) -> None:
        expected = self.definition.inputs
        if len(inputs) == len(expected):
            return
        if len(inputs) < len(expected) and self._defaults:
            return
        raise InvalidArgumentError(
            f"input size does not match signature: {len(inputs)}!={len(expected)} "
            f"len({{{_join(inputs)}}}) != len({{{_join(expected)}}}). "
            f"Sent extra: {{{_join(set(inputs) - set(expected))}}}. "
            f"Missing but required: {{{_join(set(expected) - set(inputs))}}}."
        )


def find_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    """Return the signature that a gRPC request names; "" means `serving_default`.

    Raises:
        FailedPreconditionError: If the model has no such signature.
    """
    name = name or DEFAULT_SIGNATURE
    if name not in signatures:
        raise FailedPreconditionError(f'Serving signature key "{name}" not found.')
    return signatures[name]


def _has_batch_dimension(info: meta_graph_pb2.TensorInfo) -> bool:
    shape = info.tensor_shape
    return not shape.unknown_rank and len(shape.dim) > 0 and shape.dim[0].size == -1


def _has_batch_of_fixed_rows(info: meta_graph_pb2.TensorInfo) -> bool:
    return _has_batch_dimension(info) and all(dim.size >= 0 for dim in info.tensor_shape.dim[1:])


def _numpy_dtype(data_type: int) -> np.dtype[Any] | None:
    try:
        return np.dtype(numpy_dtype_of(data_type))
    except UnimplementedError:
        return None  # Known once somebody sends a tensor for it.


def _as_array(result: Any) -> Array:
    if isinstance(result, np.ndarray):
        return result
    # A Session returns rank 0 as a scalar, and a string of rank 0 as bare bytes.
    array: Array = np.array(result, dtype=object if isinstance(result, bytes) else None)
    return array


def _decode(alias: str, proto: tensor_pb2.TensorProto) -> Array:
    try:
        return decode(proto)
    except TensorParsingError as error:
        raise InvalidArgumentError(f"tensor parsing error: {alias}") from error


def _join(names: Collection[str]) -> str:
    return ",".join(sorted(names))
