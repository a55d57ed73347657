"""Loads one version of a SavedModel into a Session of its own."""

from __future__ import annotations

import copy
import threading
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from serving.errors import DataLossError, FailedPreconditionError
from serving.server import scann_ops
from serving.server.signature import Signature
from serving.server.version_folders import SAVED_MODEL_FILE

_TAGS = ["serve"]


class LoadedModel:
    """A version in memory.

    It runs in a `tf.compat.v1.Session`, the runtime that TensorFlow Serving uses as well, because
    `tf.saved_model.load` leaks a whole index at each reload: 32 MB a time with 100,000 candidates
    of width 64, where closed Sessions stay flat.
    """

    def __init__(
        self, version: int, session: tf.compat.v1.Session, meta_graph: meta_graph_pb2.MetaGraphDef
    ) -> None:
        self.version = version
        self._session = session
        # Copies: a part of the MetaGraphDef would keep the whole of it, constants included.
        self.signature_defs: dict[str, meta_graph_pb2.SignatureDef] = {
            name: copy.deepcopy(definition) for name, definition in meta_graph.signature_def.items()
        }
        # `Session.make_callable` takes the slow path through `Session.run` as soon as there are
        # feeds, and that rejects shapes by rules of its own; this one goes straight to the
        # runtime, whose errors are those of TensorFlow Serving.
        self.signatures = {
            name: Signature(definition, session._make_callable_from_options)
            for name, definition in self.signature_defs.items()
        }
        self._running = 0
        self._closing = False
        self._idle = threading.Condition(threading.Lock())

    def try_acquire(self) -> bool:
        """Keep the model from being closed until `release`; False if it is being closed."""
        with self._idle:
            if self._closing:
                return False
            self._running += 1
            return True

    def release(self) -> None:
        """End what `try_acquire` began."""
        with self._idle:
            self._running -= 1
            if self._closing:
                self._idle.notify_all()

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def close(self, timeout_s: float | None = None) -> None:
        """Free the model once no request uses it any more.

        Args:
            timeout_s: After this long the requests that still run are cancelled; None waits for
                them however long they take.
        """
        with self._idle:
            self._closing = True
            is_idle = self._idle.wait_for(lambda: self._running == 0, timeout_s)
        if is_idle:
            self.signatures.clear()  # The prepared calls must go before the Session does.
        self._session.close()


def load(path: Path, version: int, session_config: config_pb2.ConfigProto) -> LoadedModel:
    """Load a SavedModel.

    Args:
        path: The version's folder.
        version: Its number.
        session_config: Thread counts and the like for the Session.

    Raises:
        DataLossError: If `saved_model.pb` is damaged.
        InvalidArgumentError: If a default of a signature cannot be read.
        FailedPreconditionError: If the model needs the ScaNN ops and this process lacks them.
        tf.errors.OpError: If its graph or variables are.
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
        if scann_ops.is_missing_from(error):
            raise FailedPreconditionError(
                f"{scann_ops.HOW_TO_GET}. The error was: {error}"
            ) from error
        raise
