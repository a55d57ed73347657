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
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from serving.errors import FailedPreconditionError, InvalidArgumentError
from serving.model_server.tensor_codec import (
    Array,
    TensorParsingError,
    data_type_of,
    decode,
    dtype_name,
)

DEFAULT_SIGNATURE = "serving_default"

MakeCallable = Callable[[config_pb2.CallableOptions], Callable[..., list[Array]]]


@dataclasses.dataclass(frozen=True)
class InputInfo:
    """How one input of a signature is fed."""

    alias: str
    feed_name: str
    data_type: int


class Signature:
    """A signature that can be run.

    Args:
        definition: The SignatureDef as the model carries it.
        make_callable: Prepares a Session for a list of feeds and fetches.
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
                    InputInfo(alias, info.name, info.dtype)
                    for alias, info in definition.inputs.items()
                ),
                key=lambda info: info.feed_name,
            )
        )
        self._inputs_by_alias = sorted(self.inputs, key=lambda info: info.alias)
        self.outputs: tuple[str, ...] = tuple(sorted(definition.outputs))
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
        self._check_size(inputs)
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

    def run(self, arrays: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        """Compute `outputs`.

        Args:
            arrays: One array for each input.
            outputs: What `select_outputs` returned.

        Raises:
            InvalidArgumentError: At the first input, in the order of feed names, of a wrong dtype.
            tf.errors.OpError: As the model's operations raise it.
        """
        feeds = [arrays[info.alias] for info in self.inputs]
        for index, (info, feed) in enumerate(zip(self.inputs, feeds, strict=True)):
            given = data_type_of(feed)
            if given != info.data_type:
                raise InvalidArgumentError(
                    f"Expects arg[{index}] to be {dtype_name(info.data_type)} but "
                    f"{dtype_name(given)} is provided"
                )
        run = self._callables.get(outputs) or self._prepare(outputs)
        return {
            alias: _as_array(result) for alias, result in zip(outputs, run(*feeds), strict=True)
        }

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
