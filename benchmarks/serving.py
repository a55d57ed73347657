"""Compare the model server with minimal gRPC servers, its model in process, and another commit.

The minimal servers return the bytes of a real response, with grpcio's synchronous and asyncio
servers; the faster one is called the floor. The servers and the load generator (`serving.loadtest`)
run in separate processes, and the measurements alternate. The model has 100,000 candidates with 64
dimensions in a ScaNN index, and k is 100. Histories have ten events. At the end, the server's
version is replaced twenty times under load.

`--against CHECKOUT` adds the server of another checkout, which must have its own `.venv`.

Usage: python benchmarks/serving.py [--json] [--rounds N] [--seconds S] [--model DIRECTORY]
    [--against CHECKOUT] [--skip-reloads]
"""

import asyncio
import contextlib
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc
import numpy as np
import psutil

from benchmarks._processes import measure_call, start_server
from benchmarks._report import Row, options_parser, row, run
from benchmarks._serving_model import predict_body, query_inputs
from serving.clients import messages_pb2
from serving.launcher import running_model_server
from serving.loadtest import LoadPlan, drive, drive_in_processes

PREDICT = "/tensorflow.serving.PredictionService/Predict"
NUM_CANDIDATES = 100_000
CLIENTS = 16
# One process of the load generator could be the limit.
LOAD_PROCESSES = 2
RELOADS = 20
CALLS = 1000
UNITS = {
    "_ms": "ms",
    "_mb": "MB",
    "_per_s": "1/s",
    "_requests": "requests",
    "_versions": "versions",
}
# `must`, `aim`, and whether larger is better.
BOUNDS: dict[str, tuple[float, float | None, bool]] = {
    "share_of_floor": (0.35, 0.50, True),
    "requests_per_s_over_against": (1.0, 1.6, True),
    "one_client_p50_over_in_process": (3.5, 2.0, False),
    "reloads_failed_requests": (0, None, False),
    "growth_in_versions": (1.0, None, False),
}


def requests(count: int) -> list[bytes]:
    """Return random serialized PredictRequests with one query each."""
    rng = np.random.default_rng(7)
    queries = (query_inputs(rng, NUM_CANDIDATES) for _ in range(count))
    return [
        predict_body(**{name: (values.shape, values.ravel()) for name, values in query.items()})
        for query in queries
    ]


def ask(target: str, message: bytes) -> bytes:
    """Send one serialized request and return the serialized response."""
    with grpc.insecure_channel(target) as channel:
        answer: bytes = channel.unary_unary(PREDICT)(message, timeout=30)
        return answer


@contextlib.contextmanager
def canned_server(kind: str, answer_file: Path) -> Iterator[str]:
    script = str(Path(__file__).with_name("_canned_server.py"))
    process = subprocess.Popen(
        [sys.executable, script, kind, PREDICT, str(answer_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait()


def load(target: str, messages: list[bytes], clients: int, seconds: float) -> LoadPlan:
    return LoadPlan(
        target, messages, seconds, concurrency=clients, connections=clients, warmup_s=0.2
    )


def prepare_calls(model: str) -> Callable[[], float]:
    """Return a function that measures the median time in ms of a call of the signature.

    The time includes the conversion from and to NumPy arrays.
    """
    import tensorflow as tf
    from scann.scann_ops.py import scann_ops  # noqa: F401 - registers the ops

    loaded = tf.saved_model.load(model)
    signature = loaded.signatures["serving_default"]
    rng = np.random.default_rng(7)
    queries = [query_inputs(rng, NUM_CANDIDATES) for _ in range(500)]

    def call(query: dict[str, Any]) -> float:
        started = time.perf_counter()
        outputs = signature(**{name: tf.constant(values) for name, values in query.items()})
        for values in outputs.values():
            values.numpy()
        return 1e3 * (time.perf_counter() - started)

    def median_ms() -> float:
        assert loaded is not None  # a signature does not keep its model alive
        times_ms = [call(queries[number % 500]) for number in range(CALLS + 100)]
        return statistics.median(times_ms[100:])

    return median_ms


def measure_throughput(
    model: Path, scratch: Path, rounds: int, seconds: float, against: str | None
) -> dict[str, float]:
    """Measure the servers and the model in process, alternately, and return medians."""
    messages = requests(500)
    answer_file = scratch / "answer"
    base_path = _served(model, scratch / "served")
    found: dict[str, list[float]] = {}
    with contextlib.ExitStack() as servers:
        server = servers.enter_context(running_model_server(base_path))
        answer_file.write_bytes(ask(server.grpc_target, messages[0]))
        targets = {"server": server.grpc_target}
        if against:
            process, ports = start_server(
                base_path,
                scratch / "against.log",
                "--port=auto",
                "--rest_api_port=auto",
                checkout=Path(against).resolve(),
            )
            servers.callback(process.wait)
            servers.callback(process.terminate)
            targets["against"] = f"127.0.0.1:{ports['grpc_port']}"
        for kind in ("sync", "aio"):
            targets[kind] = servers.enter_context(canned_server(kind, answer_file))
        for target in targets.values():
            drive_in_processes(load(target, messages, CLIENTS, 1.0), LOAD_PROCESSES)  # warm-up
        for number in range(rounds):
            # Reverse every other round, so that trends in the machine's load cancel out.
            for name, target in list(targets.items())[:: -1 if number % 2 else 1]:
                plan = load(target, messages, CLIENTS, seconds)
                many = drive_in_processes(plan, LOAD_PROCESSES)
                one = drive_in_processes(load(target, messages, 1, seconds / 2))
                if failed := {**many.messages, **one.messages}:
                    raise RuntimeError(f"{name} failed requests: {failed}")
                for measure, value in (
                    ("requests_per_s", many.throughput),
                    ("p99_ms", many.quantile_s(0.99) * 1e3),
                    ("one_client_p50_ms", one.quantile_s(0.5) * 1e3),
                ):
                    found.setdefault(f"{name}_{measure}", []).append(value)
            in_process = measure_call(
                "benchmarks.serving:prepare_calls", str(model), log=scratch / "in_process.log"
            )
            found.setdefault("in_process_p50_ms", []).append(in_process["returned"])
    medians = {name: statistics.median(values) for name, values in found.items()}
    if against:
        # The ratio is computed per round, because the machine's load is similar within a round.
        pairs = zip(found["server_requests_per_s"], found["against_requests_per_s"], strict=True)
        ratios = [server_rate / other_rate for server_rate, other_rate in pairs]
        medians["requests_per_s_over_against"] = statistics.median(ratios)
    floor = max(medians["sync_requests_per_s"], medians["aio_requests_per_s"])
    in_process_ms = medians["in_process_p50_ms"]
    return {
        **medians,
        "floor_requests_per_s": floor,
        "share_of_floor": medians["server_requests_per_s"] / floor,
        "one_client_p50_over_in_process": medians["server_one_client_p50_ms"] / in_process_ms,
    }


def _served(model: Path, base_path: Path, number: int = 1) -> Path:
    """Copy a model into a base path as a version, atomically; return the base path."""
    base_path.mkdir(exist_ok=True)
    aside = base_path / "incoming"
    shutil.copytree(model, aside)
    aside.rename(base_path / str(number))
    return base_path


def measure_reloads(model: Path, scratch: Path) -> dict[str, float]:
    """Replace the version twenty times under load; return request counts and memory."""
    base_path = _served(model, scratch / "reloaded")
    messages = requests(100)
    flags = ["--file_system_poll_wait_seconds=0.1"]
    answered = failed = 0
    with running_model_server(base_path, extra_flags=flags) as server:
        process = psutil.Process(server.pid)
        drive_in_processes(load(server.grpc_target, messages, CLIENTS, 1.0))
        start = process.memory_info().rss
        stop = threading.Event()

        def keep_asking() -> None:
            nonlocal answered, failed
            while not stop.is_set():
                found = asyncio.run(drive(load(server.grpc_target, messages, 4, 1.0)))
                failed += found.errors.total()
                answered += found.requests - found.errors.total()

        asking = threading.Thread(target=keep_asking)
        asking.start()
        memory = []
        try:
            for number in range(2, RELOADS + 2):
                _served(model, base_path, number)
                _wait_for_version(server.grpc_target, messages[0], number)
                shutil.rmtree(base_path / str(number - 1))
                memory.append(process.memory_info().rss)
        finally:
            stop.set()
            asking.join()
        time.sleep(1.0)
        end = process.memory_info().rss
    # The memory of a server with a tiny model.
    tiny = _served(_model(scratch / "tiny_model", "10", "exact", "10"), scratch / "tiny")
    with running_model_server(tiny) as server:
        bare = psutil.Process(server.pid).memory_info().rss
    version_bytes = max(start - bare, 1)
    return {
        "reloads_failed_requests": failed,
        "reloads_answered_requests": answered,
        "rss_at_start_mb": start / 1e6,
        "rss_highest_after_a_reload_mb": max(memory) / 1e6,
        "rss_at_end_mb": end / 1e6,
        "one_version_mb": version_bytes / 1e6,
        "growth_in_versions": (end - start) / version_bytes,
    }


def _wait_for_version(target: str, message: bytes, number: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = messages_pb2.PredictResponse.FromString(ask(target, message))
        if answer.model_spec.version.value == number:
            return
        time.sleep(0.1)
    raise RuntimeError(f"version {number} did not come within 60 s")


def _model(directory: Path, *arguments: str) -> Path:
    """Export a model in a new process; see `prepare_export` for the arguments."""
    prepare = "benchmarks._serving_model:prepare_export"
    measure_call(prepare, str(directory), *arguments, log=directory.with_suffix(".log"))
    return directory


def rows(options: Any, folder: Path) -> Iterator[Row]:
    if options.model:
        model = Path(options.model).resolve()
    else:
        model = _model(folder / "model", str(NUM_CANDIDATES), "scann")
    found = measure_throughput(model, folder, options.rounds, options.seconds, options.against)
    if not options.skip_reloads:
        found |= measure_reloads(model, folder)
    for name, value in found.items():
        must, aim, larger_is_better = BOUNDS.get(name, (None, None, False))
        unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
        yield row(name, value, unit, must, aim, larger_is_better=larger_is_better)


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--model", help="a model made before")
    parser.add_argument("--against", help="another checkout with its .venv")
    parser.add_argument("--skip-reloads", action="store_true")
    run(parser, rows, "tensorflow", "scann", "grpcio", "protobuf")
