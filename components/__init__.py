"""The components, one per folder.

On Kubeflow and Vertex, TFX imports the class of an artifact from its type name, such as
`components.SpanProfile`. So this package has the artifact types as attributes, which are imported
on demand.
"""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name[:1].isupper():  # the name of a class, not of a submodule
        return getattr(importlib.import_module("components.artifacts"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
