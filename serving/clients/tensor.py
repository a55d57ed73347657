"""A tensor as clients hold it: neither NumPy nor protobuf."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from serving.errors import InternalError


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Values in row-major order.

    Attributes:
        dtype: TensorFlow's name of the dtype, such as `string` or `float`.
        shape: The size of each dimension.
        values: `str` for strings, else numbers; as many as `shape` asks for.
    """

    dtype: str
    shape: tuple[int, ...]
    values: Sequence[Any]

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the values of each row of a tensor of rank 2.

        Raises:
            InternalError: If the rank is another or values are missing.
        """
        if len(self.shape) != 2 or len(self.values) != math.prod(self.shape):
            raise InternalError(
                f"The model must answer with tensors of rank 2, got shape {self.shape} "
                f"with {len(self.values)} values"
            )
        count, width = self.shape
        return [tuple(self.values[row * width : (row + 1) * width]) for row in range(count)]


def encode_text(text: str) -> bytes:
    """Return the bytes of a string; undoes `decode_text` for any bytes."""
    return text.encode("utf-8", "surrogateescape")


def decode_text(content: bytes) -> str:
    """Return the string for bytes, also for ids that are no UTF-8."""
    return content.decode("utf-8", "surrogateescape")
