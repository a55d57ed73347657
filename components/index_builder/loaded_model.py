"""A retrieval SavedModel in this process, without a server."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from models.features.spec import TIME_KEY
from models.input.raw_inputs import default_value

Tensors = Mapping[str, npt.NDArray[Any]]


class LoadedModel:
    """A SavedModel with its signatures.

    Example:
        model = LoadedModel("serving/retrieval/1")
        model.answer("serving_default", {"user": np.array([b"42"])})["candidate_ids"]
    """

    def __init__(self, path: str) -> None:
        with contextlib.suppress(ImportError):  # only ScaNN indexes need its ops
            from scann.scann_ops.py import scann_ops  # noqa: F401 - registers them
        self._module = tf.saved_model.load(path)

    def inputs(self, signature: str) -> Mapping[str, tf.TensorSpec]:
        """Return the inputs of a signature by name."""
        _, tensors = self._module.signatures[signature].structured_input_signature
        return dict(tensors)

    def output_names(self, signature: str) -> frozenset[str]:
        """Return the names of the outputs of a signature."""
        return frozenset(self._module.signatures[signature].structured_outputs)

    def width(self, signature: str) -> int | None:
        """Return the number of candidates in an answer, or None if it varies."""
        shape = self._module.signatures[signature].output_shapes["candidate_ids"]
        return None if shape.rank is None else shape[-1]

    def outputs(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """Return the outputs as tensors, with defaults for missing inputs."""
        # Training in the same process makes TensorFlow deterministic: it cannot tell the time then.
        inputs = {TIME_KEY: [int(time.time())], **inputs}
        given = {
            name: tf.constant(inputs[name], tensor.dtype)
            if name in inputs
            else default_value(tensor)
            for name, tensor in self.inputs(signature).items()
        }
        return dict(self._module.signatures[signature](**given))

    def answer(self, signature: str, inputs: Mapping[str, Any]) -> Tensors:
        """Return the outputs as arrays, with defaults for missing inputs."""
        return {name: tensor.numpy() for name, tensor in self.outputs(signature, inputs).items()}
