"""What a step's container is given of a machine."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from pipeline.config.did_you_mean import did_you_mean
from pipeline.errors import ConfigError

# Fields of ResourceSpec in api/v2alpha1/pipeline_spec.proto of kubeflow/pipelines: cores, and
# memory in units of 10^9 bytes, which its backend writes as Kubernetes' `G`.
ResourceSpec: TypeAlias = Mapping[str, Any]

KUBERNETES_GPU = "nvidia.com/gpu"
_BYTES: Mapping[str, int] = {
    **{unit: 1000**power for power, unit in enumerate("KMGTP", start=1)},
    **{f"{unit}i": 1024**power for power, unit in enumerate("KMGTP", start=1)},
}


def parse_resources(texts: Sequence[str], gpu_type: str | None = KUBERNETES_GPU) -> dict[str, Any]:
    """Returns the ResourceSpec of each component in `COMPONENT=KEY:VALUE,…`.

    Keys are `cpu` (cores, or thousandths as 500m), `memory` (as 16G or 16Gi), both limits;
    `cpu_request` and `memory_request`, the limits if absent; `gpu` (a number) and `gpu_type`.

    Args:
        texts: One for each component.
        gpu_type: What `gpu` alone means; None: `gpu_type` must be given.

    Raises:
        ConfigError: A text is not of that form, or a component comes twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        component, _, list_of_values = text.partition("=")
        if not component or not list_of_values:
            raise _error(text, "is not COMPONENT=KEY:VALUE,…")
        if component in found:
            raise _error(text, f"gives {component} resources a second time")
        found[component] = _spec(text, list_of_values.split(","), gpu_type)
    return found


def check_components(resources: Mapping[str, ResourceSpec], components: Sequence[str]) -> None:
    """Checks that there are only resources of known components.

    Raises:
        ConfigError: One is unknown.
    """
    for name in resources:
        if name not in components:
            raise ConfigError(
                f"--resources {name}: this pipeline has no such component, it has "
                f"{', '.join(components)}{did_you_mean(name, components)}"
            )


def _spec(text: str, pairs: Sequence[str], gpu_type: str | None) -> dict[str, Any]:
    given: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition(":")
        if key not in _KEYS or not value or key in given:
            raise _error(text, f"must have each of {', '.join(_KEYS)} once at most, as KEY:VALUE")
        given[key] = value
    spec: dict[str, Any] = {}
    for key, (field, read) in _NUMBERS.items():
        if key in given:
            spec[field] = _read(text, key, given[key], read)
    for key in ("cpu", "memory"):
        limit, request = spec.get(f"{key}Limit"), spec.get(f"{key}Request")
        if limit is not None and request is not None and request > limit:
            raise _error(text, f"requests more {key} than its limit")
    if "gpu" in given:
        chosen = given.get("gpu_type") or gpu_type
        if chosen is None:
            raise _error(text, "must name the GPU, such as gpu_type:NVIDIA_TESLA_T4")
        # Counted in a string, as JSON has an int64.
        count = str(_read(text, "gpu", given["gpu"], _count))
        spec["accelerator"] = {"type": chosen, "count": count}
    elif "gpu_type" in given:
        raise _error(text, "has a gpu_type and no gpu")
    return spec


def _read(text: str, key: str, value: str, read: Callable[[str], Any]) -> Any:
    try:
        number = read(value)
    except (KeyError, ValueError) as error:
        raise _error(text, f"has an impossible {key}: {value!r}") from error
    if number <= 0:
        raise _error(text, f"has no {key}")
    return number


def _cores(value: str) -> float:
    if re.fullmatch(r"\d+m", value):
        return int(value[:-1]) / 1000
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    raise ValueError(value)


def _gigabytes(value: str) -> float:
    # A number alone would be bytes to Kubernetes, and gigabytes to many.
    match = re.fullmatch(r"(\d+)([A-Z]i?)", value)
    if match is None:
        raise ValueError(value)
    num_bytes = int(match[1]) * _BYTES[match[2]]
    return num_bytes / 10**9


def _count(value: str) -> int:
    if not re.fullmatch(r"\d+", value):
        raise ValueError(value)
    return int(value)


def _error(text: str, problem: str) -> ConfigError:
    return ConfigError(
        f"--resources {text}: {problem}; an example is Trainer=cpu:4,memory:16G,gpu:1"
    )


_NUMBERS: Mapping[str, tuple[str, Callable[[str], float]]] = {
    "cpu": ("cpuLimit", _cores),
    "memory": ("memoryLimit", _gigabytes),
    "cpu_request": ("cpuRequest", _cores),
    "memory_request": ("memoryRequest", _gigabytes),
}
_KEYS = (*_NUMBERS, "gpu", "gpu_type")
