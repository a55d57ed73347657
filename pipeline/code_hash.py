"""Hashes of the application's code, so that TFX's cache notices an edit.

TFX caches a component by its inputs and parameters, so a hash of the component's code is one of its
parameters. It covers every module of the application that the component imports, also indirectly.
"""

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGES = ("components", "models", "pipeline", "serving")

_ROOT = Path(__file__).resolve().parent.parent


def code_hash(*modules: str) -> str:
    """Return a hash of modules and of all modules that they import, also inside functions.

    Raises:
        ModuleNotFoundError: A module does not exist.
    """
    found: set[str] = set()
    to_visit = list(modules)
    while to_visit:
        module = to_visit.pop()
        if module not in found:
            found.add(module)
            to_visit += _imports(module, _ROOT)
    return _hash(_file(module, _ROOT) for module in found)


def application_hash() -> str:
    """Return a hash of the code of the whole application."""
    return _hash(file for package in PACKAGES for file in (_ROOT / package).rglob("*.py"))


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file.relative_to(_ROOT)).encode())
        digest.update(b"\0")
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def _imports(module: str, root: Path) -> tuple[str, ...]:
    """Return the application's modules that a module imports, and the packages that it is in."""
    parents = [module[:index] for index, letter in enumerate(module) if letter == "."]
    names = [parent for parent in parents if _find(parent, root)]
    for statement in _statements(ast.parse(_file(module, root).read_bytes())):
        names += filter(is_ours, _imported_names(statement, module, root))
    return tuple(names)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all statements in a node, in a fifth of the time of `ast.walk`."""
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
        for statement in getattr(node, field, ()):
            yield statement
            yield from _statements(statement)


def _imported_names(node: ast.AST, module: str, root: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            raise ValueError(f"imports must be absolute, but {module} has a relative one")
        if _find(str(node.module), root):
            yield str(node.module)
        # A name can be a submodule.
        names = (f"{node.module}.{alias.name}" for alias in node.names)
        yield from (name for name in names if is_ours(name) and _find(name, root))


def is_ours(module: str) -> bool:
    """Return whether a module belongs to the application."""
    return module.partition(".")[0] in PACKAGES


def _find(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)


def _file(module: str, root: Path) -> Path:
    if (file := _find(module, root)) is None:
        raise ModuleNotFoundError(f"there is no module {module} under {root}")
    return file
