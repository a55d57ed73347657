"""Requests share runs; none can tell."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from serving.errors import DeadlineExceededError, InvalidArgumentError, UnavailableError
from serving.server import loaded_model
from serving.server.batching import Batcher, Call
from serving.server.batching_options import BatchingOptions, batching_options
from serving.server.flags import parse_flags
from serving.server.loaded_model import LoadedModel
from serving.server.startup import StartupError

NAN = np.float32("nan")


@pytest.fixture(scope="module")
def model(exported_model: Path) -> Iterator[LoadedModel]:
    model = loaded_model.load(exported_model, 1, config_pb2.ConfigProto())
    yield model
    model.close()


class Held:
    """A batcher whose only thread is busy until `release`; then it runs what has queued up."""

    def __init__(self, model: LoadedModel, **options: Any) -> None:
        self.runs: list[int] = []
        self._go = threading.Event()
        self.batcher = Batcher(
            BatchingOptions(num_batch_threads=1, **options),
            lambda requests, rows, waits: self.runs.append(requests),
        )
        self._done: list[threading.Event] = []
        started = threading.Event()

        def block(calls: list[Call]) -> None:
            started.set()
            self._go.wait(10)

        self.batcher.submit([call(model, "similar_candidates", movie_id=["a"])], block)
        assert started.wait(10)
        self.runs.clear()

    def submit(self, call: Call) -> None:
        done = threading.Event()
        self.batcher.submit([call], lambda calls: done.set())
        self._done.append(done)

    def release(self) -> list[int]:
        """Run the rest; return the number of requests in each run."""
        self._go.set()
        for done in self._done:
            assert done.wait(10)
        self.batcher.stop()
        return self.runs


def call(
    model: LoadedModel, signature: str, deadline_s: float | None = None, **inputs: Any
) -> Call:
    found = model.signatures[signature]
    arrays = {
        name: np.array(
            [[item.encode() for item in row] if isinstance(row, list) else row for row in value]
            if isinstance(value[0], list)
            else [item.encode() if isinstance(item, str) else item for item in value],
            dtype=found_dtype(found, name),
        )
        for name, value in inputs.items()
    }
    return Call(found, found.order_feeds(arrays), found.outputs, deadline_s)


def found_dtype(signature: Any, name: str) -> Any:
    (info,) = [info for info in signature.inputs if info.alias == name]
    return info.dtype


def query(model: LoadedModel, users: list[str], history: list[list[str]], **changes: Any) -> Call:
    rows = len(users)
    inputs = {
        "user_id": users,
        "age": [NAN] * rows,
        "country": [""] * rows,
        "title": [[""]] * rows,
        "history": history,
    }
    return call(model, "serving_default", **{**inputs, **changes})


def answer_alone(call: Call) -> list[Any]:
    return [result.tolist() for result in call.signature.compute(call.feeds, call.outputs)]


def answer(call: Call) -> list[Any]:
    assert call.error is None
    return [result.tolist() for result in call.results]


def test_what_queued_up_shares_one_run(model: LoadedModel) -> None:
    held = Held(model)
    calls = [
        query(model, ["u1"], [["c"]]),
        query(model, ["ü→1", "?"], [["a"], [""]]),
        query(model, ["u1"], [[""]]),
    ]
    for each in calls:
        held.submit(each)
    assert held.release() == [3]
    assert [answer(each) for each in calls] == [answer_alone(each) for each in calls]


def test_a_lone_request_does_not_wait_for_others(model: LoadedModel) -> None:
    runs: list[int] = []
    batcher = Batcher(BatchingOptions(), lambda requests, rows, waits: runs.append(requests))
    batcher.run(query(model, ["u1"], [["c"]]), timeout_s=10)
    assert runs == [1]
    batcher.stop()


def test_signatures_outputs_and_widths_run_apart(model: LoadedModel) -> None:
    held = Held(model)
    narrow, wide = query(model, ["u1"], [["c"]]), query(model, ["u1"], [["c", "d"]])
    other = call(model, "similar_candidates", movie_id=["b"])
    only_scores = Call(narrow.signature, narrow.feeds, ("scores",))
    calls = [narrow, wide, other, only_scores, query(model, ["ü→1"], [["a"]])]
    for each in calls:
        held.submit(each)
    # The last one joins the first.
    assert sorted(held.release()) == [1, 1, 1, 2]
    assert [answer(each) for each in calls] == [
        answer_alone(Call(each.signature, each.feeds, each.outputs)) for each in calls
    ]


@pytest.mark.parametrize(
    "options", [{"padded_inputs": frozenset({"history"})}, {"pads_all_inputs": True}]
)
def test_inputs_in_which_padding_means_nothing_are_padded(
    model: LoadedModel, options: dict[str, Any]
) -> None:
    held = Held(model, **options)
    calls = [
        query(model, ["u1"], [["c"]]),
        query(model, ["ü→1", "?"], [["a", "b", "c"], ["d", "", ""]]),
        query(model, ["u1"], np.empty((1, 0)).tolist()),
    ]
    for each in calls:
        held.submit(each)
    assert held.release() == [3]
    assert [answer(each) for each in calls] == [answer_alone(each) for each in calls]


def test_rows_of_one_run_are_limited_and_no_request_is_cut(model: LoadedModel) -> None:
    held = Held(model, max_batch_rows=3)
    for rows in (2, 2, 1, 5):
        held.submit(query(model, ["u1"] * rows, [["c"]] * rows))
    assert held.release() == [1, 2, 1]


@pytest.fixture(scope="module")
def picky_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    class Picky(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "count")])
        def check(self, count: Any) -> Any:
            with tf.control_dependencies([tf.debugging.assert_non_negative(count, "negative")]):
                return {"checked": tf.identity(count)}

    path = tmp_path_factory.mktemp("picky") / "1"
    picky = Picky()
    tf.saved_model.save(picky, str(path), signatures={"serving_default": picky.check})
    model = loaded_model.load(path, 1, config_pb2.ConfigProto())
    yield model
    model.close()


def test_an_error_reaches_only_who_caused_it(model: LoadedModel, picky_model: LoadedModel) -> None:
    held = Held(model)
    good, bad, fine = (call(picky_model, "serving_default", count=[count]) for count in (2, -1, 0))
    for each in (good, bad, fine):
        held.submit(each)
    assert held.release() == [3]
    assert (answer(good), answer(fine)) == ([[2]], [[0]])
    assert isinstance(bad.error, InvalidArgumentError)
    assert "negative" in bad.error.message


def test_outputs_that_are_not_row_by_row_are_never_shared(model: LoadedModel) -> None:
    held = Held(model)
    calls = [call(model, name, movie_id=["a"]) for name in ("odd", "odd", "scalars", "scalars")]
    # How wide a row of `repeat` is depends on the other rows.
    calls += [call(model, "repeat", text=["a"], count=[count]) for count in (2, 2)]
    for each in calls:
        held.submit(each)
    assert held.release() == [1] * 6


def test_one_row_that_stands_for_all_is_not_mixed_up(model: LoadedModel) -> None:
    # The model repeats `age` for its batch; beside another request it would be one row of many.
    held = Held(model)
    one_for_all = call(
        model,
        "serving_default",
        user_id=["u1", "?"],
        age=[np.float32(100)],
        country=["", ""],
        title=[[""]] * 2,
        history=[["c"]] * 2,
    )
    other = query(model, ["u1"], [["c"]])
    held.submit(one_for_all)
    held.submit(other)
    assert held.release() == [1, 1]
    assert answer(one_for_all) == answer_alone(one_for_all)


def test_a_request_past_its_deadline_is_not_run(model: LoadedModel) -> None:
    held = Held(model)
    late = query(model, ["u1"], [["c"]], deadline_s=time.monotonic() - 1)
    held.submit(late)
    assert held.release() == []
    assert isinstance(late.error, DeadlineExceededError)


def test_who_stops_waiting_is_not_run_for(model: LoadedModel) -> None:
    held = Held(model)
    with pytest.raises(DeadlineExceededError, match="Timed out waiting for notification"):
        held.batcher.run(query(model, ["u1"], [["c"]]), timeout_s=0.01)
    held.submit(query(model, ["u1"], [["c"]]))
    assert held.release() == [1]


def test_limits_refuse(model: LoadedModel) -> None:
    held = Held(model, max_enqueued_calls=1, max_request_rows=2)
    large = query(model, ["u1"] * 3, [["c"]] * 3)
    calls = [large, *(query(model, ["u1"], [["c"]]) for _ in range(2))]
    refused: list[Call] = []
    held.batcher.submit(calls, refused.extend)
    assert [(type(each.error), str(each.error)) for each in refused] == [
        (InvalidArgumentError, "Task size 3 is larger than maximum input batch size 2"),
        (UnavailableError, "The batch scheduling queue to which this task was submitted is full"),
    ]
    held.release()


def test_stop_gives_back_what_waits_and_refuses_more(model: LoadedModel) -> None:
    held = Held(model)
    waiting, late = (query(model, ["u1"], [["c"]]) for _ in range(2))
    held.submit(waiting)
    held.batcher.stop()
    held.release()
    assert isinstance(waiting.error, UnavailableError)
    with pytest.raises(UnavailableError, match="The server is shutting down"):
        held.batcher.run(late, timeout_s=10)


def test_off_means_one_request_a_run(model: LoadedModel) -> None:
    held = Held(model, is_enabled=False)
    for _ in range(3):
        held.submit(query(model, ["u1"], [["c"]]))
    assert held.release() == [1, 1, 1]


def test_many_threads_get_each_their_own_answer(model: LoadedModel) -> None:
    batcher = Batcher(BatchingOptions(num_batch_threads=2, padded_inputs=frozenset({"history"})))
    random = np.random.default_rng(0)
    calls = []
    for _ in range(200):
        rows, width = random.integers(1, 4), random.integers(1, 4)
        users = random.choice(["u1", "ü→1", "?"], rows).tolist()
        history = random.choice(["a", "b", "c", "d", ""], (rows, width)).tolist()
        calls.append(query(model, users, history))
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda each: batcher.run(each, 10), calls))
    batcher.stop()
    for each, result in zip(calls, results, strict=True):
        assert [array.tolist() for array in result] == answer_alone(each)


def test_an_idle_batcher_keeps_no_version_alive(exported_model: Path) -> None:
    model = loaded_model.load(exported_model, 1, config_pb2.ConfigProto())
    batcher = Batcher(BatchingOptions(num_batch_threads=1))
    batcher.run(query(model, ["u1"], [["c"]]), timeout_s=10)
    alive = weakref.ref(model.signatures["serving_default"])
    model.close()
    del model
    gc.collect()
    deadline = time.monotonic() + 5
    while alive() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive() is None
    batcher.stop()


def options_of(*flags: str) -> BatchingOptions:
    return batching_options(parse_flags(["--model_base_path=/m", *flags]))


def test_the_file_is_tensorflow_servings(tmp_path: Path) -> None:
    file = tmp_path / "batching.config"
    file.write_text(
        "max_batch_size { value: 64 } batch_timeout_micros { value: 500 }\n"
        "max_enqueued_batches { value: 100 } num_batch_threads { value: 2 }\n"
        "pad_variable_length_inputs: true"
    )
    options = options_of(f"--batching_parameters_file={file}", "--padded_inputs=history,exclude")
    assert options == BatchingOptions(
        max_batch_rows=64,
        max_request_rows=64,
        max_enqueued_calls=6400,
        num_batch_threads=2,
        padded_inputs=frozenset({"history", "exclude"}),
        pads_all_inputs=True,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_sise { value: 1 }", "is no BatchingParameters in protobuf's text format: 1:1"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be at least 1, got 0"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "batching.config"
    file.write_text(text)
    with pytest.raises(StartupError, match=message):
        options_of(f"--batching_parameters_file={file}")


def test_a_file_without_batching_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="without setting --enable_batching"):
        options_of("--enable_batching=false", f"--batching_parameters_file={tmp_path}/x")


def test_an_absent_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="--batching_parameters_file: cannot read"):
        options_of(f"--batching_parameters_file={tmp_path}/x")
