"""A version of a SavedModel in memory, which is loaded into a separate Session.

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
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow_serving.apis import prediction_log_pb2

from serving.errors import (
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    UnimplementedError,
)
from serving.server import event_log
from serving.server.predict import Signature, find_signature
from serving.server.version_folders import SAVED_MODEL_FILE

WARMUP_REQUESTS_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_WARMUP_RECORDS = 1000

_TAGS = ["serve"]
_MISSING_SCANN_OP = "Op type not registered 'Scann>"


class LoadedModel:
    """A loaded version of a model.

    A request calls `try_acquire` and then uses the model in a `with` block, which releases it.

    The version runs in a `tf.compat.v1.Session`, as in TensorFlow Serving. `tf.saved_model.load`
    leaks a whole index at each reload: 32 MB with 100,000 candidates of width 64. A closed Session
    leaks nothing.
    """

    def __init__(
        self, version: int, session: tf.compat.v1.Session, meta_graph: meta_graph_pb2.MetaGraphDef
    ) -> None:
        self.version = version
        self._session = session
        # Copies, because a reference to a part of the MetaGraphDef would keep all of it in memory,
        # including the constants.
        self.signature_defs: dict[str, meta_graph_pb2.SignatureDef] = {
            name: copy.deepcopy(definition) for name, definition in meta_graph.signature_def.items()
        }
        # With feeds, `Session.make_callable` uses `Session.run`, which is slow and has its own
        # shape checks. This method calls the runtime directly, so the errors are the same as in
        # TensorFlow Serving.
        self.signatures = {
            name: Signature(definition, session._make_callable_from_options)
            for name, definition in self.signature_defs.items()
        }
        self._num_running = 0
        self._is_closing = False
        self._idle = threading.Condition(threading.Lock())

    def try_acquire(self) -> bool:
        """Keep the model open until the end of a `with` block; return False if it is closing."""
        with self._idle:
            if self._is_closing:
                return False
            self._num_running += 1
            return True

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(self, *raised: object) -> None:
        with self._idle:
            self._num_running -= 1
            self._idle.notify_all()

    def close(self, timeout_s: float | None = None) -> None:
        """Wait until no request uses the model, or at most `timeout_s`, and free it.

        Requests that still run then are cancelled.
        """
        with self._idle:
            self._is_closing = True
            is_idle = self._idle.wait_for(lambda: self._num_running == 0, timeout_s)
        if is_idle:
            self.signatures.clear()  # Their callables must be freed before the Session is closed.
        self._session.close()


def load(path: Path, version: int, session_config: config_pb2.ConfigProto) -> LoadedModel:
    """Load a SavedModel.

    Raises:
        DataLossError: If `saved_model.pb` is damaged.
        InvalidArgumentError: If a default value of a signature cannot be decoded.
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
    except Exception as error:  # Every failure must free the session.
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

    Models without a ScaNN index do not need them.
    """
    try:
        from scann.scann_ops.py import scann_ops  # noqa: F401
    except (ImportError, tf.errors.NotFoundError) as error:
        # NotFoundError means that the package was built for another version of TensorFlow.
        event_log.warning("scann_ops_missing", error=error)
        return False
    event_log.info("scann_ops_registered")
    return True


def exempt_imports_from_gc() -> None:
    """Exempt all objects that exist now from garbage collection.

    TensorFlow's modules contain about 250,000 objects. Without the exemption, each `free_memory`
    takes 0.5 s to scan them, and no request is answered in that time.
    """
    gc.collect()
    gc.freeze()


def free_memory() -> None:
    """Return the memory of an unloaded version to the operating system.

    A TensorFlow graph is part of a reference cycle and contains the model's constants. Only the
    garbage collector frees it, which can take hours in a server with little traffic. glibc then
    keeps the freed memory. Without this function, each reload of a model with 50,000 candidates
    leaks 6 to 8 MB; with it, 0.02 MB.
    """
    started_s = time.monotonic()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # if the C library is not glibc
        ctypes.CDLL(None).malloc_trim(0)
    event_log.info("memory_freed", seconds=time.monotonic() - started_s)


def replay_warmup(model: LoadedModel, path: Path) -> int:
    """Run the warm-up requests in a version folder, and return their number.

    A ScaNN index builds its searcher at the first call, which takes 0.1 s with 100,000 candidates
    and 0.6 s with a million. With warm-up, the first user request does not have to wait for this.

    Raises:
        InvalidArgumentError: If a record cannot be parsed, or there are more than
            `MAX_WARMUP_RECORDS`.
        UnimplementedError: If a record is not a Predict request.
        ServingError: If a request fails.
    """
    file = path / WARMUP_REQUESTS_FILE
    if not file.exists():
        return 0
    replayed = 0
    for record in tf.compat.v1.io.tf_record_iterator(str(file)):
        if replayed == MAX_WARMUP_RECORDS:
            raise InvalidArgumentError(
                f"Number of warmup records exceeds the maximum ({MAX_WARMUP_RECORDS}) at {file}"
            )
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError as error:
            raise InvalidArgumentError(
                f"Failed to parse warmup record: number {replayed} from {file}"
            ) from error
        kind = log.WhichOneof("log_type")
        if kind != "predict_log":
            raise UnimplementedError(f"Unsupported log_type for warmup: {kind}")
        request = log.predict_log.request
        signature = find_signature(model.signatures, request.model_spec.signature_name)
        feeds = signature.feeds_from_protos(request.inputs)
        signature.compute(feeds, signature.select_outputs(request.output_filter))
        replayed += 1
    return replayed
