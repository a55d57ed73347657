from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, saved_model_pb2

from serving.errors import CancelledError, DataLossError, InvalidArgumentError
from serving.server import loaded_model

ROOT = Path(__file__).resolve().parents[3]
CONFIG = config_pb2.ConfigProto()


def test_wrong_dtype_has_the_text_and_the_number_of_tensorflows_session(
    exported_model: Path,
) -> None:
    model = loaded_model.load(exported_model, 1, CONFIG)
    signature = model.signatures["serving_default"]
    feeds = signature.feeds_from_protos({})
    arrays = {info.alias: feed for info, feed in zip(signature.inputs, feeds, strict=True)}
    arrays["history"] = np.int64([[1]])

    # The oracle is DirectSession::Run, which TensorFlow Serving calls. `Session.run` would
    # convert the array first, and a prepared call has another error text.
    session = model._session
    feeds = {
        session.graph.get_tensor_by_name(info.feed_name)._as_tf_output(): arrays[info.alias]
        for info in signature.inputs
    }
    output = session.graph.get_tensor_by_name(signature.definition.outputs["scores"].name)
    with pytest.raises(tf.errors.InvalidArgumentError) as expected:
        session._call_tf_sessionrun(None, feeds, [output._as_tf_output()], [], None)

    with pytest.raises(InvalidArgumentError) as caught:
        signature.check_dtypes([arrays[info.alias] for info in signature.inputs])
    assert caught.value.message == expected.value.message
    model.close()


def test_damaged_file_is_data_loss(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"no protobuf")
    with pytest.raises(DataLossError, match=r"Can't parse .*saved_model\.pb as binary proto"):
        loaded_model.load(tmp_path, 1, CONFIG)


def test_a_default_that_cannot_be_read_fails_the_load(exported_model: Path, tmp_path: Path) -> None:
    path = shutil.copytree(exported_model, tmp_path / "1")
    saved_model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    definition = saved_model.meta_graphs[0].signature_def["serving_default"]
    definition.defaults["age"].tensor_shape.dim[0].size = -1
    (path / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    with pytest.raises(InvalidArgumentError, match="tensor parsing error: age"):
        loaded_model.load(path, 1, CONFIG)


def test_a_model_that_is_being_closed_takes_no_requests(exported_model: Path) -> None:
    model = loaded_model.load(exported_model, 1, CONFIG)
    assert model.try_acquire()
    with model:
        pass
    model.close()
    assert not model.try_acquire()


def test_nothing_of_an_unloaded_version_stays_in_memory(exported_model: Path) -> None:
    gc.disable()  # Else Python might collect the cycle at any moment.
    try:
        model = loaded_model.load(exported_model, 1, CONFIG)
        graph = weakref.ref(model._session.graph)
        model.close()
        del model
        assert graph() is not None, "the graph is no longer a cycle: free_memory need not collect"
        loaded_model.free_memory()
        assert graph() is None
    finally:
        gc.enable()


def test_requests_that_outlast_the_time_to_close_are_cancelled(slow_model: Path) -> None:
    model = loaded_model.load(slow_model, 1, CONFIG)
    errors: list[Exception] = []

    def count_for_hours() -> None:
        assert model.try_acquire()
        with model:
            try:
                model.signatures["serving_default"].compute([np.int64([10**10])], ("counted",))
            except CancelledError as error:
                errors.append(error)

    counting = threading.Thread(target=count_for_hours)
    counting.start()
    time.sleep(0.2)
    model.close(timeout_s=0.1)
    counting.join(10)
    assert len(errors) == 1


@pytest.fixture(scope="module")
def scann_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builders = pytest.importorskip("scann.scann_ops.py.scann_ops")
    vectors = np.eye(4, 8, dtype=np.float32)

    class Index(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            searcher = builders.builder(vectors, 2, "dot_product").score_brute_force().build()
            self.searcher = searcher.serialize_to_module()

        @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, "embedding")])
        def search(self, embedding: Any) -> Any:
            searcher = builders.searcher_from_module(self.searcher)
            indices, scores = searcher.search_batched(embedding)
            return {"indices": tf.cast(indices, tf.int32), "scores": scores}

    index = Index()
    path = tmp_path_factory.mktemp("scann") / "1"
    tf.saved_model.save(index, str(path), signatures={"serving_default": index.search})
    return path


def test_scann_index_is_searched(scann_model: Path) -> None:
    assert loaded_model.register_scann_ops()
    model = loaded_model.load(scann_model, 1, CONFIG)
    query = np.zeros((1, 8), np.float32)
    query[0, 2] = 1.0
    indices, scores = model.signatures["serving_default"].compute([query], ("indices", "scores"))
    assert indices[0, 0] == 2
    assert scores[0, 0] == 1.0
    model.close()


def test_without_scann_its_model_fails_with_what_to_do_and_others_load(
    scann_model: Path, exported_model: Path
) -> None:
    script = f"""
import sys
sys.modules["scann"] = None  # As if it were not installed.
from pathlib import Path
from tensorflow.core.protobuf import config_pb2, saved_model_pb2
from serving.errors import FailedPreconditionError
from serving.server import loaded_model
print(loaded_model.register_scann_ops())
loaded_model.load(Path({str(exported_model)!r}), 1, config_pb2.ConfigProto()).close()
try:
    loaded_model.load(Path({str(scann_model)!r}), 1, config_pb2.ConfigProto())
except FailedPreconditionError as error:
    print(error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    registered, message = done.stdout.splitlines()[:2]
    assert registered == "False"
    assert "install `scann`" in message
    assert "`index.backend: partitioned`" in message
    assert "Op type not registered 'Scann>" in message
