"""Parsing of container resources: cores, memory and GPUs."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from pipeline.errors import ConfigError, did_you_mean

# Fields of ResourceSpec in api/v2alpha1/pipeline_spec.proto of kubeflow/pipelines. Memory is in
# units of 10^9 bytes, which the backend passes to Kubernetes with the suffix `G`.
ResourceSpec: TypeAlias = Mapping[str, Any]

KUBERNETES_GPU = "nvidia.com/gpu"
_MILLICORES: Mapping[str, int] = {"": 1000, "m": 1}
# The unit is required: without one, Kubernetes assumes bytes, but many people mean gigabytes.
_BYTES: Mapping[str, int] = {
    **{unit: 1000**power for power, unit in enumerate("KMGTP", start=1)},
    **{f"{unit}i": 1024**power for power, unit in enumerate("KMGTP", start=1)},
}
# By key: the field of ResourceSpec, the units, and the number of these in a unit of the field.
_QUANTITIES: Mapping[str, tuple[str, Mapping[str, int], int]] = {
    "cpu": ("cpuLimit", _MILLICORES, 10**3),
    "memory": ("memoryLimit", _BYTES, 10**9),
    "cpu_request": ("cpuRequest", _MILLICORES, 10**3),
    "memory_request": ("memoryRequest", _BYTES, 10**9),
}
_KEYS = (*_QUANTITIES, "gpu", "gpu_type")


def parse_resources(texts: Sequence[str], gpu_type: str | None = KUBERNETES_GPU) -> dict[str, Any]:
    """Parse `--resources` options into a ResourceSpec per component.

    The keys `cpu` (cores such as 2, or millicores such as 500m) and `memory` (such as 16G or 16Gi)
    are limits. `cpu_request` and `memory_request` default to the limits. `gpu` is the number of
    GPUs, and `gpu_type` their type, which is required if the argument `gpu_type` is None. There is
    one option of the form `COMPONENT=KEY:VALUE,…` per component.

    Raises:
        ConfigError: An option is malformed, or two options are for the same component.
    """
    found: dict[str, Any] = {}
    for text in texts:
        component, _, pairs = text.partition("=")
        if not component or not pairs:
            raise _error(text, "must have the form COMPONENT=KEY:VALUE,…")
        if component in found:
            raise _error(text, f"{component} already has resources")
        found[component] = _spec(text, pairs.split(","), gpu_type)
    return found


def check_components(resources: Mapping[str, ResourceSpec], components: Sequence[str]) -> None:
    """Raise ConfigError if a component with resources is unknown."""
    for name in resources:
        if name not in components:
            raise ConfigError(
                f"--resources {name}: this pipeline has no such component, only "
                f"{', '.join(components)}{did_you_mean(name, components)}"
            )


def _spec(text: str, pairs: Sequence[str], gpu_type: str | None) -> dict[str, Any]:
    values: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition(":")
        if key not in _KEYS or not value or key in values:
            raise _error(text, f"takes {', '.join(_KEYS)} at most once each, as KEY:VALUE")
        values[key] = value
    spec: dict[str, Any] = {}
    for key, (field, units, divisor) in _QUANTITIES.items():
        if key in values:
            spec[field] = _parse(text, key, values[key], units) / divisor
    for key in ("cpu", "memory"):
        limit, request = spec.get(f"{key}Limit"), spec.get(f"{key}Request")
        if limit is not None and request is not None and request > limit:
            raise _error(text, f"{key}_request must not be more than {key}")
    if "gpu" in values:
        chosen = values.get("gpu_type") or gpu_type
        if chosen is None:
            raise _error(text, "gpu needs a gpu_type, such as gpu_type:NVIDIA_TESLA_T4")
        # `count` is an int64, which protobuf's JSON format represents as a string.
        count = str(int(_parse(text, "gpu", values["gpu"], {"": 1})))
        spec["accelerator"] = {"type": chosen, "count": count}
    elif "gpu_type" in values:
        raise _error(text, "gpu_type needs a number of GPUs, such as gpu:1")
    return spec


def _parse(text: str, key: str, value: str, units: Mapping[str, int]) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", value)
    if match is None or match[2] not in units or (key == "gpu" and not value.isdecimal()):
        raise _error(text, f"{key} cannot be {value!r}")
    number = float(match[1]) * units[match[2]]
    if number <= 0:
        raise _error(text, f"{key} must be more than 0")
    return number


def _error(text: str, problem: str) -> ConfigError:
    return ConfigError(
        f"--resources {text}: {problem}. An example is Trainer=cpu:4,memory:16G,gpu:1"
    )
