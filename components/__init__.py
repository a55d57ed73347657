"""The components, one per folder.

A container on Kubeflow or Vertex gets the type of an artifact as a title of the form
`namespace.Name`, and imports the class of that name. So the artifact types can be imported from
here too, under their `TYPE_NAME`. They are imported on demand.

Import this package before TFX: it defers imports that no component needs.
"""

import importlib
from typing import Any

from components.patches.deferred_imports import defer_unneeded_imports

defer_unneeded_imports()


def __getattr__(name: str) -> Any:
    if name[:1].isupper():  # the name of a class, not of a submodule
        return getattr(importlib.import_module("components.artifacts"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
