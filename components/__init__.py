"""The components, one per folder.

On Kubeflow and Vertex, TFX imports the class of an artifact from its type name, such as
`components.SpanProfile`, so this package has the artifact types as attributes.

Import this package before TFX, because it defers imports that no component needs.
"""

import importlib
import logging
import warnings
from typing import Any

from components.patches.deferred_imports import defer_unneeded_imports

defer_unneeded_imports()
# Beam warns about each cloud file system that is not installed, and Google's packages warn that
# support for Python 3.10 ends. Neither needs action.
logging.getLogger("apache_beam.io.filesystems").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=FutureWarning, module="google")


def __getattr__(name: str) -> Any:
    if name[:1].isupper():  # the name of a class, not of a submodule
        return getattr(importlib.import_module("components.artifacts"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
