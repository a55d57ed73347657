from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

PACKAGES = ("components", "models", "pipeline", "serving")


def test_no_modules_import_each_other() -> None:
    """Imports inside of functions count too."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))
