"""One version of a SavedModel in memory: load it into a Session of its own, run it, free it.

References:
    cc/saved_model/loader.cc of TensorFlow.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import threading
import time
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from serving.errors import DataLossError, FailedPreconditionError
from serving.server import event_log
from serving.server.signature import Signature
from serving.server.version_folders import SAVED_MODEL_FILE

_TAGS = ["serve"]
_MISSING_SCANN_OP = "Op type not registered 'Scann>"


class LoadedModel:
    """A version in memory; a request holds it in a `with` block.

    It runs in a `tf.compat.v1.Session`, the runtime of TensorFlow Serving. `tf.saved_model.load`
    leaks a whole index at each reload: 32 MB with 100,000 candidates of width 64. Closed Sessions
    leak nothing.
    """

    def __init__(
        self, version: int, session: tf.compat.v1.Session, meta_graph: meta_graph_pb2.MetaGraphDef
    ) -> None:
        self.version = version
        self._session = session
        # Copies: a part of the MetaGraphDef would keep all of it in memory, constants included.
        self.signature_defs: dict[str, meta_graph_pb2.SignatureDef] = {
            name: copy.deepcopy(definition) for name, definition in meta_graph.signature_def.items()
        }
        # `Session.make_callable` goes through the slow `Session.run` as soon as there are feeds,
        # and that refuses shapes by its own rules. This one goes straight to the runtime, whose
        # errors are those of TensorFlow Serving.
        self.signatures = {
            name: Signature(definition, session._make_callable_from_options)
            for name, definition in self.signature_defs.items()
        }
        self._num_running = 0
        self._is_closing = False
        self._idle = threading.Condition(threading.Lock())

    def try_acquire(self) -> bool:
        """Keep the model open until `release`; return False if it is being closed."""
        with self._idle:
            if self._is_closing:
                return False
            self._num_running += 1
            return True

    def release(self) -> None:
        """Undo one `try_acquire`."""
        with self._idle:
            self._num_running -= 1
            if self._is_closing:
                self._idle.notify_all()

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def close(self, timeout_s: float | None = None) -> None:
        """Free the model once no request uses it.

        Args:
            timeout_s: Running requests are cancelled after this time; None waits for them.
        """
        with self._idle:
            self._is_closing = True
            is_idle = self._idle.wait_for(lambda: self._num_running == 0, timeout_s)
        if is_idle:
            self.signatures.clear()  # The prepared calls must go before the Session does.
        self._session.close()


def load(path: Path, version: int, session_config: config_pb2.ConfigProto) -> LoadedModel:
    """Load a SavedModel.

    Args:
        path: The version's folder.
        version: Its number.
        session_config: Thread counts for the Session.

    Raises:
        DataLossError: If `saved_model.pb` is damaged.
        InvalidArgumentError: If a default of a signature cannot be read.
        FailedPreconditionError: If the model needs the ScaNN ops and they are not registered.
        tf.errors.OpError: If the graph or the variables are damaged.
        RuntimeError: If there is no meta graph with the tag `serve`.
    """
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph, config=session_config)
    try:
        with graph.as_default():
            meta_graph = tf.compat.v1.saved_model.loader.load(session, _TAGS, str(path))
        return LoadedModel(version, session, meta_graph)
    except Exception as error:
        session.close()
        if isinstance(error, OSError) and str(error).startswith("Cannot parse file"):
            raise DataLossError(f"Can't parse {path / SAVED_MODEL_FILE} as binary proto") from error
        if _MISSING_SCANN_OP in str(error):
            raise FailedPreconditionError(
                "The model needs the ScaNN ops, but this server has none: install `scann` in the "
                "release for this TensorFlow, or export the index with `index.backend: "
                f"partitioned` or `exact`. The error was: {error}"
            ) from error
        raise


def register_scann_ops() -> bool:
    """Register ScaNN's ops if the package is installed; return whether they are registered.

    Models without a ScaNN index load in any case.
    """
    try:
        from scann.scann_ops.py import scann_ops  # noqa: F401
    except (ImportError, tf.errors.NotFoundError) as error:
        # NotFoundError: the package was built for another TensorFlow.
        event_log.warning("scann_ops_missing", error=error)
        return False
    event_log.info("scann_ops_registered")
    return True


def exempt_imports_from_gc() -> None:
    """Exempt all objects that exist now from garbage collection.

    TensorFlow's modules hold a quarter of a million objects. To scan them took half a second at
    each `free_memory`, and no request is answered meanwhile.
    """
    gc.collect()
    gc.freeze()


def free_memory() -> None:
    """Return the memory of an unloaded version to the operating system.

    A TensorFlow graph is a reference cycle that holds the constants of its model. Only the garbage
    collector frees it, which takes hours in a quiet server, and glibc keeps freed memory. Without
    this, each reload of a model with 50,000 candidates cost 6 to 8 MB, now 0.02 MB.
    """
    started_s = time.monotonic()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # The C library is not glibc.
        ctypes.CDLL(None).malloc_trim(0)
    event_log.info("memory_freed", seconds=time.monotonic() - started_s)
