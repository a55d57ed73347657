"""Packages of TFX whose contents are imported one by one, when they are asked for.

A step of a pipeline imports the components and their declarations, and with them two packages that
import everything they hold: `tfx.components` all of TFX's components, `tensorflow_model_analysis` a
language toolkit, scikit-learn and its own metrics, of which TFX needs the name of one message. That
was a third of what a step takes to start.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


@dataclass
class _OwnCode:
    loader: Loader
    lock: threading.RLock = field(default_factory=threading.RLock)
    is_running: bool = False

    def run(self, package: ModuleType, asked: str) -> None:
        """Turns the package into an ordinary module, unless another thread has."""
        with self.lock:
            if self.is_running:  # by this thread: what it imports has asked
                raise AttributeError(
                    f"module {package.__name__!r} has no attribute {asked!r} yet: its import is "
                    "not over"
                )
            if "_own_code" not in package.__dict__:
                return
            self.is_running = True
            try:
                self.loader.exec_module(package)
            finally:
                self.is_running = False
            # From now on an ordinary module: what it lacks, it lacks.
            package.__class__ = ModuleType
            del package.__dict__["_own_code"]


class LazyPackage(ModuleType):
    """A package that runs its own code only if something is asked of it that no submodule is.

    Its code runs once, in one thread while the others wait. Code that fails says why to everybody
    who asks, and is tried again each time, as an import is.
    """

    def __init__(self, name: str, loader: Loader) -> None:
        super().__init__(name)
        self._own_code = _OwnCode(loader)

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
        # Not an attribute any more, where another thread has loaded the package meanwhile.
        own_code: _OwnCode | None = self.__dict__.get("_own_code")
        if own_code is not None:
            own_code.run(self, name)
        return getattr(self, name)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """Is pickled by its name, as cloudpickle and dill pickle ordinary modules."""
        return importlib.import_module, (self.__name__,)


class _LazyLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return LazyPackage(spec.name, self._loader)

    def exec_module(self, module: ModuleType) -> None:
        """Leaves the package's own code for later."""


class _LazyFinder(MetaPathFinder):
    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._names:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LazyLoader(spec.loader)
        return spec


def import_lazily(*names: str) -> None:
    """Makes packages lazy from their first import on; those that are imported stay as they are.

    Nothing is imported here, neither the packages nor those that they are in.
    """
    sys.meta_path.insert(0, _LazyFinder(names))
