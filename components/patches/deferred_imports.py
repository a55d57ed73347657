"""Import submodules of two packages without running the `__init__.py` of the packages.

TFDV's display functions, which no component needs, are imported when they are called. Their import
writes a hint about IPython to standard error.

`tfx.components` imports all components of TFX and their dependencies, such as the Kubernetes
client. `tensorflow_model_analysis` imports a language toolkit, scikit-learn and its own metrics,
but TFX needs one message only. Upstream has no issue about it.

Gain: a quarter of the CPU at each start of a step (4.1 instead of 5.6 s on Kubeflow), and 100 MB.

Remove when: the `__init__.py` of both no longer import everything (TFX 1.16, TFMA 0.47 do), and
`utils/display_util.py` writes nothing (TFDV 1.16 does).
"""

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from typing import Any


def defer_unneeded_imports() -> None:
    """Register the packages without running their code, unless they are imported already.

    The code of a package runs when an attribute is read that is not a submodule.
    """
    tfx = PathFinder.find_spec("tfx")
    specs = [PathFinder.find_spec("tensorflow_model_analysis")]
    if tfx is not None:
        specs.append(PathFinder.find_spec("tfx.components", tfx.submodule_search_locations))
    for spec in specs:
        if spec is not None and spec.name not in sys.modules:
            _defer(spec)
    validation = PathFinder.find_spec("tensorflow_data_validation")
    if validation is not None and validation.name not in sys.modules:
        folders = [f"{folder}/utils" for folder in validation.submodule_search_locations or ()]
        spec = PathFinder.find_spec(f"{validation.name}.utils.display_util", folders)
        if spec is not None:
            _defer_functions(spec)


def _defer(spec: ModuleSpec) -> None:
    package = module_from_spec(spec)

    def find(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {spec.name!r} has no attribute {name!r}")
        submodule = f"{spec.name}.{name}"
        try:
            return importlib.import_module(submodule)
        except ModuleNotFoundError as error:
            if error.name != submodule:
                raise
        if vars(package).pop("__getattr__", None) and spec.loader is not None:
            spec.loader.exec_module(package)
        return getattr(package, name)

    vars(package)["__getattr__"] = find
    sys.modules[spec.name] = package


def _defer_functions(spec: ModuleSpec) -> None:
    """Register a module whose code runs when one of its functions is called."""
    module = module_from_spec(spec)

    def find(name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if vars(module).pop("__getattr__", None) and spec.loader is not None:
                spec.loader.exec_module(module)
            return getattr(module, name)(*arguments, **options)

        return call

    vars(module)["__getattr__"] = find
    sys.modules[spec.name] = module
