"""What a client learns about a model from the server."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

# tensorflow/core/framework/types.proto
DTYPE_NAMES = {1: "float", 2: "double", 3: "int32", 7: "string", 9: "int64", 10: "bool"}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One input or output of a signature.

    Attributes:
        dtype: TensorFlow's name of the dtype, such as `string` or `float`.
        shape: One number a dimension, None where any size will do; None if even the rank is
            unknown.
    """

    dtype: str
    shape: tuple[int | None, ...] | None

    @property
    def rank(self) -> int | None:
        """The number of dimensions, None if unknown."""
        return None if self.shape is None else len(self.shape)


@dataclasses.dataclass(frozen=True)
class SignatureSpec:
    """One signature: its inputs and outputs by name."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """The signatures of one version of a model."""

    model_version: int
    signatures: Mapping[str, SignatureSpec]


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """Where the server stands with one version.

    Attributes:
        version: The version.
        state: `START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END`.
        error_code: The name of a canonical code, `OK` if nothing went wrong.
        error_message: What went wrong, else "".
    """

    version: int
    state: str
    error_code: str
    error_message: str

    @property
    def is_available(self) -> bool:
        """Whether the version answers requests."""
        return self.state == "AVAILABLE"
