"""Packages of TFX whose contents are imported one by one, when they are asked for.

A step of a pipeline imports the components and their declarations, and with them two packages that
import everything they hold: `tfx.components` all of TFX's components, `tensorflow_model_analysis` a
language toolkit, scikit-learn and its own metrics, of which TFX needs the name of one message. That
was a third of what a step takes to start.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class LazyPackage(ModuleType):
    """A package that runs its own code only if something is asked of it that no submodule is."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec
        self.__package__ = spec.name
        self.__file__ = spec.origin
        self.__path__ = list(spec.submodule_search_locations or ())

    def __getattr__(self, name: str) -> Any:
        """Imports the submodule of a name, or else the package as a whole."""
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        submodule = f"{self.__name__}.{name}"
        try:
            return importlib.import_module(submodule)
        except ModuleNotFoundError as error:
            if error.name != submodule:
                raise
        if type(self) is LazyPackage and self.__spec__ is not None and self.__spec__.loader:
            # From now on an ordinary module: what it lacks, it lacks.
            self.__class__ = ModuleType  # type: ignore[assignment]
            self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def import_lazily(*names: str) -> None:
    """Makes packages lazy that are not imported yet."""
    for name in names:
        parent, _, child = name.rpartition(".")
        if name in sys.modules:
            continue
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # the package that it is in
            spec = None
        if spec is None:
            continue
        package = LazyPackage(spec)
        sys.modules[name] = package
        if parent:
            setattr(sys.modules[parent], child, package)
