"""Requests share runs, and no answer changes because of it."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from serving.errors import DeadlineExceededError, InvalidArgumentError, UnavailableError
from serving.server import loaded_model
from serving.server.batching import Batcher, BatchingOptions
from serving.server.loaded_model import LoadedModel
from serving.server.predict import Signature
from serving.server.tensor_codec import Array

NAN = np.float32("nan")
Request = tuple[Signature, list[Array], tuple[str, ...]]


@pytest.fixture(scope="module")
def model(exported_model: Path) -> Iterator[LoadedModel]:
    model = loaded_model.load(exported_model, 1, config_pb2.ConfigProto())
    yield model
    model.close()


class Blocker:
    """A signature that keeps a thread busy until `release` is set."""

    is_batchable = False

    def __init__(self) -> None:
        self.started = threading.Event()
        self.release = threading.Event()

    def expected_s(self, rows: int) -> float:
        return math.inf

    def compute(self, feeds: Any, outputs: Any) -> list[Array]:
        self.started.set()
        assert self.release.wait(20)
        return []


class Held:
    """A batcher whose only thread is busy until `release`; then it runs what waits."""

    def __init__(self, **options: Any) -> None:
        self.runs: list[int] = []
        self.batcher = Batcher(
            BatchingOptions(num_threads=1, **options),
            lambda requests, rows, waits: self.runs.append(requests),
        )
        self._blocker: Any = Blocker()

    async def block(self) -> None:
        self._blocking = asyncio.ensure_future(self.batcher.run(self._blocker, [], ()))
        await asyncio.to_thread(self._blocker.started.wait, 20)
        self.runs.clear()

    def submit(self, request: Request, deadline_s: float | None = None) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self.batcher.run(*request, deadline_s))

    async def release(self) -> None:
        await asyncio.sleep(0)  # The submitted requests reach the queue.
        self._blocker.release.set()
        await self._blocking


def run_held(test: Callable[[Held], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        held = Held(**options)
        await held.block()
        try:
            await test(held)
        finally:
            await held.release()
            held.batcher.stop()

    asyncio.run(run())


async def runs_of(held: Held, requests: list[Request]) -> tuple[list[int], list[Any]]:
    """Return how many requests each run had, and the results or errors."""
    waiting = [held.submit(request) for request in requests]
    await held.release()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    return held.runs, results


def request(model: LoadedModel, name: str, **inputs: Any) -> Request:
    signature = model.signatures[name]
    feeds = []
    for info in signature.inputs:
        encoded = np.vectorize(lambda text: str(text).encode(), otypes=[object])
        array = np.array(inputs[info.alias])
        feeds.append(encoded(array) if info.dtype == np.object_ else array.astype(info.dtype))
    return signature, feeds, signature.outputs


def query(model: LoadedModel, users: list[str], history: Any, **changes: Any) -> Request:
    rows = len(users)
    inputs = {"user_id": users, "age": [NAN] * rows, "country": [""] * rows}
    inputs |= {"title": [[""]] * rows, "history": history, **changes}
    return request(model, "serving_default", **inputs)


def check_runs(requests: list[Request], expected: list[int], **options: Any) -> None:
    """Check how many requests each run has, and that batching changes no answer."""

    async def test(held: Held) -> None:
        runs, results = await runs_of(held, requests)
        assert runs == expected
        for result, each in zip(results, requests, strict=True):
            np.testing.assert_equal(to_lists(result), alone(each))

    run_held(test, **options)


def to_lists(results: list[Array]) -> list[Any]:
    return [result.tolist() for result in results]


def alone(request: Request) -> list[Any]:
    signature, feeds, outputs = request
    return to_lists(signature.compute(feeds, outputs))


def test_waiting_requests_share_one_run(model: LoadedModel) -> None:
    requests = [
        query(model, ["u1"], [["c"]]),
        query(model, ["ü→1", "?"], [["a"], [""]]),
        query(model, ["u1"], [[""]]),
    ]

    check_runs(requests, [3])


def test_requests_share_a_run_while_others_keep_arriving(model: LoadedModel) -> None:
    async def test() -> list[int]:
        runs: list[int] = []
        batcher = Batcher(BatchingOptions(), lambda requests, rows, waits: runs.append(requests))

        async def ask_after(turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await batcher.run(*query(model, ["u1"], [["c"]]))

        await asyncio.gather(*(ask_after(turns) for turns in (0, 0, 4, 8)))
        batcher.stop()
        return runs

    assert asyncio.run(test()) == [4]


@pytest.mark.parametrize(
    ("expected_s", "pause_s", "thread"),
    [
        (0.001, 0.05, "MainThread"),
        (0.03, 0.05, "batch_0"),
        (0.001, 0.0, "batch_0"),
        (math.inf, 0.05, "batch_0"),
    ],
    ids=["short", "long", "many requests", "unknown duration"],
)
def test_only_short_runs_of_rare_requests_block_the_event_loop(
    expected_s: float, pause_s: float, thread: str
) -> None:
    class Recorder(Blocker):
        def expected_s(self, rows: int) -> float:
            return expected_s

        def compute(self, feeds: Any, outputs: Any) -> list[Array]:
            threads.append(threading.current_thread().name)
            return []

    threads: list[str] = []
    recorder: Any = Recorder()

    async def test() -> None:
        batcher = Batcher(BatchingOptions(num_threads=1))
        for _ in range(5):
            await batcher.run(recorder, [], ())
            await asyncio.sleep(pause_s)
        batcher.stop()

    asyncio.run(test())
    assert threads[-1] == thread


def test_the_duration_of_a_run_is_expected_from_the_last_one(exported_model: Path) -> None:
    model = loaded_model.load(exported_model, 1, config_pb2.ConfigProto())
    signature, feeds, outputs = request(model, "similar_candidates", movie_id=["a", "b"])
    assert signature.expected_s(1) == math.inf
    signature.compute(feeds, outputs)
    assert 0 < signature.expected_s(1) == signature.expected_s(2) < 10
    assert signature.expected_s(10) == 5 * signature.expected_s(2)
    model.close()


def test_signatures_outputs_and_widths_run_separately(model: LoadedModel) -> None:
    narrow, wide = query(model, ["u1"], [["c"]]), query(model, ["u1"], [["c", "d"]])
    only_scores = (narrow[0], narrow[1], ("scores",))
    other = request(model, "similar_candidates", movie_id=["b"])
    requests = [narrow, wide, other, only_scores, query(model, ["ü→1"], [["a"]])]

    check_runs(requests, [2, 1, 1, 1])  # The last request joins the first.


def test_narrow_inputs_are_padded_if_allowed(model: LoadedModel) -> None:
    requests = [
        query(model, ["u1"], [["c"]]),
        query(model, ["ü→1", "?"], [["a", "b", "c"], ["d", "", ""]]),
        query(model, ["u1"], np.empty((1, 0))),
    ]

    check_runs(requests, [3], pads_inputs=True)


def test_rows_of_one_run_are_limited_and_no_request_is_split(model: LoadedModel) -> None:
    requests = [query(model, ["u1"] * rows, [["c"]] * rows) for rows in (2, 2, 1, 5)]
    check_runs(requests, [1, 2, 1], max_batch_rows=3)


def test_a_busy_signature_does_not_starve_another(model: LoadedModel) -> None:
    requests = [query(model, ["u1"], [["c"]]) for _ in range(4)]
    requests.append(request(model, "similar_candidates", movie_id=["b"]))

    async def test(held: Held) -> None:
        order: list[int] = []
        waiting = [held.submit(each) for each in requests]
        for number, future in enumerate(waiting):
            future.add_done_callback(lambda _, number=number: order.append(number))
        await held.release()
        await asyncio.gather(*waiting)
        assert order == [0, 1, 4, 2, 3]

    run_held(test, max_batch_rows=2)


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


def test_only_the_request_at_fault_gets_the_error(picky_model: LoadedModel) -> None:
    requests = [request(picky_model, "serving_default", count=[count]) for count in (2, -1, 0)]

    async def test(held: Held) -> None:
        runs, (good, bad, fine) = await runs_of(held, requests)
        assert runs == [3]
        assert (to_lists(good), to_lists(fine)) == ([[2]], [[0]])
        assert isinstance(bad, InvalidArgumentError)
        assert "negative" in bad.message

    run_held(test)


def test_outputs_that_are_not_row_by_row_never_share(model: LoadedModel) -> None:
    names = ("odd", "odd", "scalars", "scalars")
    requests = [request(model, name, movie_id=["a"]) for name in names]
    # The width of a row of `repeat` depends on the other rows.
    requests += [request(model, "repeat", text=["a"], count=[count]) for count in (2, 2)]
    check_runs(requests, [1] * 6)


def test_one_row_that_counts_for_the_whole_request_runs_alone(model: LoadedModel) -> None:
    one_for_all = query(model, ["u1", "?"], [["c"]] * 2, age=[100])
    check_runs([one_for_all, query(model, ["u1"], [["c"]])], [1, 1])


def test_late_and_cancelled_requests_are_not_run(model: LoadedModel) -> None:
    async def test(held: Held) -> None:
        late = held.submit(query(model, ["u1"], [["c"]]), time.monotonic() - 1)
        gone = held.submit(query(model, ["u1"], [["c"]]))
        await asyncio.sleep(0)
        gone.cancel()
        await held.release()
        with pytest.raises(DeadlineExceededError):
            await late
        assert held.runs == []

    run_held(test)


def test_limits_refuse(model: LoadedModel) -> None:
    small = query(model, ["u1"], [["c"]])

    async def test(held: Held) -> None:
        with pytest.raises(InvalidArgumentError, match="Task size 3 is larger than"):
            await held.batcher.run(*query(model, ["u1"] * 3, [["c"]] * 3))
        waiting = held.submit(small)
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match=r"queue .* is full"):
            await held.batcher.run(*small)
        await held.release()
        assert to_lists(await waiting) == alone(small)

    run_held(test, max_waiting=1, max_request_rows=2)


def test_stop_drops_waiting_requests_and_refuses_more(model: LoadedModel) -> None:
    async def test(held: Held) -> None:
        waiting = held.submit(query(model, ["u1"], [["c"]]))
        await asyncio.sleep(0)
        held.batcher.stop()
        with pytest.raises(UnavailableError, match="shutting down"):
            await waiting
        with pytest.raises(UnavailableError, match="shutting down"):
            await held.batcher.run(*query(model, ["u1"], [["c"]]))

    run_held(test)


def test_without_batching_each_request_runs_alone(model: LoadedModel) -> None:
    check_runs([query(model, ["u1"], [["c"]])] * 3, [1, 1, 1], is_enabled=False)


def test_a_defect_reaches_the_caller_and_the_thread_goes_on(model: LoadedModel) -> None:
    class Broken(Blocker):
        def compute(self, feeds: Any, outputs: Any) -> list[Array]:
            raise RuntimeError("broken")

    async def test(held: Held) -> None:
        broken: Any = Broken()
        failing = held.submit((broken, [], ()))
        fine = held.submit(query(model, ["u1"], [["c"]]))
        await held.release()
        with pytest.raises(Exception, match="RuntimeError: broken"):
            await failing
        assert await fine

    run_held(test)


def test_many_threads_and_requests_get_the_right_answers(model: LoadedModel) -> None:
    random = np.random.default_rng(0)
    requests = []
    for _ in range(200):
        rows, width = random.integers(1, 4), random.integers(1, 4)
        users = random.choice(["u1", "ü→1", "?"], rows).tolist()
        history = random.choice(["a", "b", "c", "d", ""], (rows, width)).tolist()
        requests.append(query(model, users, history))

    async def test() -> list[Any]:
        batcher = Batcher(BatchingOptions(num_threads=2, pads_inputs=True))
        results = await asyncio.gather(*(batcher.run(*each) for each in requests))
        batcher.stop()
        return results

    results = asyncio.run(asyncio.wait_for(test(), 60))
    assert [to_lists(result) for result in results] == [alone(each) for each in requests]


def test_an_idle_batcher_keeps_no_version_in_memory(exported_model: Path) -> None:
    async def test() -> None:
        model = loaded_model.load(exported_model, 1, config_pb2.ConfigProto())
        batcher = Batcher(BatchingOptions(num_threads=1))
        await batcher.run(*query(model, ["u1"], [["c"]]))
        signature = weakref.ref(model.signatures["serving_default"])
        model.close()
        del model
        deadline = time.monotonic() + 5
        while signature() is not None and time.monotonic() < deadline:
            gc.collect()
            await asyncio.sleep(0.01)
        assert signature() is None
        batcher.stop()

    asyncio.run(test())
