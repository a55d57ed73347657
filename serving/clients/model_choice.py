"""Which model, and which of its versions, a client asks."""

from __future__ import annotations

import dataclasses

from serving.errors import InvalidArgumentError


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """A model's name with at most one way to name a version.

    Attributes:
        name: The name under which the model is served.
        version: The version by its number.
        label: The version by its label, such as `stable`; the server knows which it is now.
    """

    name: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            raise InvalidArgumentError(
                "model_version and version_label both name a version: pass one of them, got "
                f"{self.version} and {self.label!r}"
            )
