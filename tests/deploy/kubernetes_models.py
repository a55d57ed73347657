"""Holds manifests against the models of the official Kubernetes client.

The client's own deserializer ignores fields that it does not know, which is how a misspelt probe
stays unseen until a pod hangs. This one refuses them.
"""

from __future__ import annotations

import re
from typing import Any

from kubernetes import client

_SCALARS: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "datetime": str,
    "object": object,
}
# Younger than the client's models; from the API reference of Kubernetes 1.27.
_YOUNGER_FIELDS = {"V1PodDisruptionBudgetSpec": {"unhealthyPodEvictionPolicy": "str"}}
# `int or string`, which the client types as `object`.
_CONTAINERS = re.compile(r"(?P<kind>list\[|dict\(str, )(?P<item>.+)[\])]")


def check(value: Any, type_name: str, path: str = "") -> None:
    """Check a part of a manifest.

    Args:
        value: As read from YAML.
        type_name: The name of the client's model, such as `V1Deployment`, or of a scalar.
        path: Position of the part, for the message.

    Raises:
        AssertionError: If a field is unknown, missing or of a wrong type; the message names it.
    """
    container = _CONTAINERS.fullmatch(type_name)
    if container:
        is_list = container["kind"] == "list["
        assert isinstance(value, list if is_list else dict), f"{path} must be a {type_name}"
        items = enumerate(value) if is_list else value.items()
        for key, item in items:
            check(item, container["item"], f"{path}.{key}")
    elif type_name in _SCALARS:
        is_bool = isinstance(value, bool) and type_name != "object"
        assert isinstance(value, _SCALARS[type_name]), f"{path} must be a {type_name}: {value!r}"
        assert not is_bool or type_name == "bool", f"{path} must be a {type_name}: {value!r}"
    else:
        _check_model(value, type_name, path)


def _check_model(value: Any, type_name: str, path: str) -> None:
    model = getattr(client, type_name)
    assert isinstance(value, dict), f"{path} must be a {type_name}: {value!r}"
    types = {json: model.openapi_types[name] for name, json in model.attribute_map.items()}
    types |= _YOUNGER_FIELDS.get(type_name, {})
    for key, item in value.items():
        assert key in types, f"{path}.{key} is no field of {type_name}"
        check(item, types[key], f"{path}.{key}")
    names = {json: name for name, json in model.attribute_map.items()}
    # Raises ValueError where a required field is missing or a value is out of its range.
    model(**{names[key]: item for key, item in value.items() if key in names})
