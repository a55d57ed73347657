"""What a client needs of the way to the server; gRPC and REST each provide it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from serving.clients.model_metadata import ModelMetadata, SignatureSpec, VersionStatus
from serving.clients.tensor import Tensor


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The outputs of a signature, and the version that computed them if the server tells it."""

    outputs: Mapping[str, Tensor]
    model_version: int | None


class Transport(Protocol):
    """A way to one model on one server. Its methods raise `ServingError`."""

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
