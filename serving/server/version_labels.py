"""Names for versions, such as `stable`, that a request may give instead of a number.

References:
    `UpdateModelVersionLabelMap` in tensorflow_serving/model_servers/server_core.cc.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from serving.errors import FailedPreconditionError, InvalidArgumentError

Labels = Mapping[str, Mapping[str, int]]
"""Versions by label by model."""


class UnavailableVersions(enum.Enum):
    """Whether a label may be given to a version that is not available."""

    REFUSED = enum.auto()
    NEW_LABELS = enum.auto()
    ALLOWED = enum.auto()


def read_labels(
    configs: Iterable[Any],
    available: Mapping[str, Collection[int]],
    current: Labels,
    unavailable: UnavailableVersions,
) -> Labels:
    """Return the labels that a list of `ModelConfig` assigns.

    Args:
        configs: The list.
        available: The available versions by model.
        current: The labels before.
        unavailable: Which labels other versions may have.

    Raises:
        FailedPreconditionError: If a label is for a version that may not have it.
    """
    labels: dict[str, dict[str, int]] = {}
    for config in configs:
        for label, version in sorted(config.version_labels.items()):
            is_moved = current.get(config.name, {}).get(label, version) != version
            is_allowed = unavailable == UnavailableVersions.ALLOWED or (
                unavailable == UnavailableVersions.NEW_LABELS and not is_moved
            )
            if not is_allowed and version not in available.get(config.name, ()):
                raise FailedPreconditionError(
                    f"Request to assign label to version {version} of model {config.name}, "
                    "which is not currently available for inference"
                )
            labels.setdefault(config.name, {})[label] = version
    return labels


def labelled_version(labels: Labels, model: str, label: str) -> int:
    """Return the version that a label stands for.

    Raises:
        InvalidArgumentError: If the model has no such label.
    """
    try:
        return labels[model][label]
    except KeyError:
        raise InvalidArgumentError(f"Unrecognized servable version label: {label}") from None
