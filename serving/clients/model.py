"""A served model from the client's view: its versions, its signatures, and their tensors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from serving.errors import InternalError, InvalidArgumentError

_SHOWN_CHARACTERS = 100


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """The model that requests are sent to, and optionally a version number or label.

    The server resolves a label, such as `stable`, to a version.

    Raises:
        InvalidArgumentError: If both a version and a label are given, or one is invalid.
    """

    name: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        version = self.version
        if version is not None and not (type(version) is int and 0 <= version < 2**63):
            raise InvalidArgumentError(
                f"model_version must be an integer from 0, got {shown(version)}"
            )
        for argument, text in (("model_name", self.name), ("version_label", self.label or "")):
            if not isinstance(text, str):
                raise InvalidArgumentError(f"{argument} must be a string, got {shown(text)}")
            encode_text(text)
        if self.version is not None and self.label is not None:
            raise InvalidArgumentError(
                "Pass at most one of model_version and version_label, got "
                f"{self.version} and {self.label!r}"
            )


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """The dtype and shape of an input or output of a signature.

    Attributes:
        dtype: TensorFlow's name of the dtype, such as `string` or `float`.
        shape: The size of each dimension, where None means any size; None if the rank is unknown.
    """

    dtype: str
    shape: tuple[int | None, ...] | None

    @property
    def rank(self) -> int | None:
        """Return the number of dimensions, or None if it is unknown."""
        return None if self.shape is None else len(self.shape)


@dataclasses.dataclass(frozen=True)
class SignatureSpec:
    """The name, inputs and outputs of a signature."""

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
    """The state of one version on the server.

    Attributes:
        state: `START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END`.
        error_code: The name of a gRPC status code; `OK` if there was no error.
    """

    version: int
    state: str
    error_code: str
    error_message: str

    @property
    def is_available(self) -> bool:
        """Return whether the version answers requests."""
        return self.state == "AVAILABLE"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor whose values are a flat sequence in row-major order. It does not need NumPy.

    Attributes:
        dtype: TensorFlow's name of the dtype, such as `string` or `float`.
        shape: The size of each dimension.
        values: `str` for strings, otherwise numbers.
    """

    dtype: str
    shape: tuple[int, ...]
    values: Sequence[Any]

    def rows(self) -> list[tuple[Any, ...]]:
        """Split the values of a rank-2 tensor into rows."""
        if len(self.shape) != 2 or len(self.values) != math.prod(self.shape):
            raise InternalError(
                f"The model must answer with tensors of rank 2, got shape {self.shape} "
                f"with {len(self.values)} values"
            )
        count, width = self.shape
        return [tuple(self.values[row * width : (row + 1) * width]) for row in range(count)]


def encode_text(text: str) -> bytes:
    """Encode a string as UTF-8; surrogate escapes from `decode_text` become the original bytes.

    Raises:
        InvalidArgumentError: The string contains half a surrogate pair.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        half = text[error.start : error.end]
        raise InvalidArgumentError(
            f"Text must not contain half of a surrogate pair, got {half!r}"
        ) from error


def decode_text(content: bytes) -> str:
    """Decode UTF-8, with surrogate escapes for bytes that are not valid UTF-8."""
    return content.decode("utf-8", "surrogateescape")


def shown(value: Any) -> str:
    """Return a value and its type for a message."""
    try:
        text = repr(value)
    except Exception:  # `repr` of any class can fail, and that of an integer of many digits does.
        text = "a value that cannot be shown"
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "…"
    return f"{text} of type {type(value).__name__}"
