"""What a client needs of the way to the server; gRPC and REST each provide it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from serving.clients.model_metadata import ModelMetadata, SignatureSpec, VersionStatus
from serving.clients.tensor import Tensor

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The outputs of a signature, and the version that computed them if the server tells it."""

    outputs: Mapping[str, Tensor]
    model_version: int | None


class Transport(Protocol):
    """A way to one model on one server that blocks. Its methods raise `ServingError`."""

    def predict(
        self, signature: SignatureSpec, inputs: Mapping[str, Tensor], timeout_s: float
    ) -> Prediction:
        """Run a signature."""

    def metadata(self, timeout_s: float) -> ModelMetadata:
        """Describe the model's signatures."""

    def status(self, timeout_s: float) -> list[VersionStatus]:
        """Tell the states of the model's versions."""

    def close(self) -> None:
        """Give up the connection."""


class AsyncTransport(Protocol):
    """The same for asyncio, and a pause that lets others run meanwhile."""

    async def predict(
        self, signature: SignatureSpec, inputs: Mapping[str, Tensor], timeout_s: float
    ) -> Prediction:
        """Run a signature."""

    async def metadata(self, timeout_s: float) -> ModelMetadata:
        """Describe the model's signatures."""

    async def status(self, timeout_s: float) -> list[VersionStatus]:
        """Tell the states of the model's versions."""

    async def pause(self, seconds: float) -> None:
        """Wait."""


class Blocking:
    """A blocking transport in the form of an `AsyncTransport`: each await ends at once.

    So what a client does is written once, as coroutines; `run_blocking` runs them without an
    event loop.

    Args:
        transport: Does the work.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def predict(
        self, signature: SignatureSpec, inputs: Mapping[str, Tensor], timeout_s: float
    ) -> Prediction:
        """Run a signature."""
        return self._transport.predict(signature, inputs, timeout_s)

    async def metadata(self, timeout_s: float) -> ModelMetadata:
        """Describe the model's signatures."""
        return self._transport.metadata(timeout_s)

    async def status(self, timeout_s: float) -> list[VersionStatus]:
        """Tell the states of the model's versions."""
        return self._transport.status(timeout_s)

    async def pause(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def run_blocking(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that awaits nothing but what ends at once, such as a `Blocking` transport.

    Raises:
        RuntimeError: If it waits for an event loop after all.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("the coroutine waits for an event loop")
