"""A version that is unloaded leaves nothing behind."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

from tensorflow.core.protobuf import config_pb2

from serving.server import loaded_model, process_memory


def test_nothing_of_an_unloaded_version_is_left(exported_model: Path) -> None:
    gc.disable()  # Whether Python would look for rings of its own accord is chance.
    try:
        model = loaded_model.load(exported_model, 1, config_pb2.ConfigProto())
        graph = weakref.ref(model._session.graph)
        model.close()
        del model
        assert graph() is not None, "the graph is no ring any more: give_back need not collect"
        process_memory.give_back()
        assert graph() is None
    finally:
        gc.enable()
