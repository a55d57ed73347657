"""Compare the model server with minimal gRPC servers, its model in process, and another commit.

The minimal servers ignore the request and return the bytes of a real response. They use grpcio's
synchronous and asyncio servers; the faster one is called the floor. Each server and the load
generator (`serving.loadtest`) run in separate processes, and the measurements alternate between the
servers. The model has 100,000 candidates with 64 dimensions in a ScaNN index, and k is 100.
Histories have ten events. At the end, the server's version is replaced twenty times under load.

`--against CHECKOUT` adds the server of another checkout, which must have its own `.venv`.

Usage: python benchmarks/serving.py [--json] [--rounds N] [--seconds S] [--model DIRECTORY]
    [--against CHECKOUT] [--skip-reloads]
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from benchmarks._report import environment, report, row  # noqa: E402
from benchmarks._serving_model import query_inputs  # noqa: E402
from serving.launcher import RunningModelServer, running_model_server  # noqa: E402
from serving.loadtest import LoadPlan, drive, drive_in_processes  # noqa: E402

PREDICT = "/tensorflow.serving.PredictionService/Predict"
NUM_CANDIDATES = 100_000
CLIENTS = 16
# One process of the load generator could be the limit.
LOAD_PROCESSES = 2
RELOADS = 20
_SCRIPTS = ROOT / "benchmarks"
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def requests(count: int, seed: int = 7) -> list[bytes]:
    """Return random serialized PredictRequests with one query each."""
    import numpy as np
    from tensorflow_serving.apis import predict_pb2

    from serving.server.tensor_codec import wire_bytes

    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "retrieval"
        for name, values in query_inputs(rng, 1, NUM_CANDIDATES).items():
            request.inputs[name].MergeFromString(wire_bytes(values))
        made.append(request.SerializeToString())
    return made


def ask(target: str, message: bytes) -> bytes:
    """Send one serialized request and return the serialized response."""
    import grpc

    with grpc.insecure_channel(target) as channel:
        answer: bytes = channel.unary_unary(PREDICT)(message, timeout=30)
        return answer


@contextlib.contextmanager
def canned_server(kind: str, answer_file: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(_SCRIPTS / "_canned_server.py"), kind, PREDICT, str(answer_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_ENVIRONMENT,
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


def in_process_p50_s(model: Path, messages_seed: int, calls: int) -> float:
    """Return the median time in seconds of a call of the signature in a new process.

    The time includes the conversion from and to NumPy arrays.
    """
    code = f"""
import sys, time, statistics
sys.path.insert(0, {str(ROOT)!r})
import numpy as np, tensorflow as tf
from scann.scann_ops.py import scann_ops
from benchmarks._serving_model import query_inputs  # noqa: E402
signature = tf.saved_model.load({str(model)!r}).signatures["serving_default"]
rng = np.random.default_rng({messages_seed})
queries = [query_inputs(rng, 1, {NUM_CANDIDATES}) for _ in range(500)]
times = []
for call in range({calls} + 100):
    query = queries[call % 500]
    start = time.perf_counter()
    outputs = signature(**{{name: tf.constant(values) for name, values in query.items()}})
    {{name: value.numpy() for name, value in outputs.items()}}
    times.append(time.perf_counter() - start)
print(statistics.median(times[100:]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
    )
    return float(done.stdout)


@contextlib.contextmanager
def server_of(checkout: Path, base_path: Path, scratch: Path) -> Iterator[str]:
    """Run the server of another checkout, and yield its gRPC address."""
    package = "serving.server" if (checkout / "serving/server").exists() else "serving.model_server"
    ready_file = scratch / "against.ready"
    with (scratch / "against.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(checkout / ".venv/bin/python"), "-m", package, "--model_name=retrieval",
                f"--model_base_path={base_path}", "--port=auto", "--rest_api_port=auto",
                f"--ready_file={ready_file}", f"--parent_pid={os.getpid()}",
            ],
            cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)},
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not ready_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                text = (scratch / "against.log").read_text(errors="replace")
                raise RuntimeError(f"the server of {checkout} did not start:\n{text[-2000:]}")
            time.sleep(0.05)
        yield f"127.0.0.1:{json.loads(ready_file.read_text())['grpc_port']}"
    finally:
        process.terminate()
        process.wait()


def measure_throughput(
    model: Path, scratch: Path, rounds: int, seconds: float, against: Path | None
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
            targets["against"] = servers.enter_context(server_of(against, base_path, scratch))
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
            found.setdefault("in_process_p50_ms", []).append(in_process_p50_s(model, 7, 1000) * 1e3)
    medians = {name: statistics.median(values) for name, values in found.items()}
    if against:
        # The ratio is computed per round, because the machine's load is similar within a round.
        pairs = zip(found["server_requests_per_s"], found["against_requests_per_s"], strict=True)
        ratios = [server_rate / other_rate for server_rate, other_rate in pairs]
        medians["requests_per_s_over_against"] = statistics.median(ratios)
    return medians


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
    with running_model_server(base_path, extra_flags=flags) as server:
        process = psutil.Process(server.pid)
        drive_in_processes(load(server.grpc_target, messages, CLIENTS, 1.0))
        start = process.memory_info().rss
        total = {"answered": 0.0, "failed": 0.0}
        stop = threading.Event()

        def keep_asking() -> None:
            while not stop.is_set():
                found = asyncio.run(drive(load(server.grpc_target, messages, 4, 1.0)))
                failed = found.errors.total()
                total["failed"] += failed
                total["answered"] += found.requests - failed

        asking = threading.Thread(target=keep_asking)
        asking.start()
        memory = []
        try:
            for number in range(2, RELOADS + 2):
                _served(model, base_path, number)
                _wait_for_version(server, messages[0], number)
                shutil.rmtree(base_path / str(number - 1))
                memory.append(process.memory_info().rss)
        finally:
            stop.set()
            asking.join()
        time.sleep(1.0)
        end = process.memory_info().rss
    version_bytes = max(start - _bare_server_bytes(scratch), 1)
    return {
        "reloads_failed_requests": total["failed"],
        "reloads_answered_requests": total["answered"],
        "rss_at_start_mb": start / 1e6,
        "rss_highest_after_a_reload_mb": max(memory) / 1e6,
        "rss_at_end_mb": end / 1e6,
        "one_version_mb": version_bytes / 1e6,
        "growth_in_versions": (end - start) / version_bytes,
    }


def _bare_server_bytes(scratch: Path) -> int:
    """Return the resident memory of a server with a tiny model in bytes."""
    tiny = scratch / "tiny_model"
    subprocess.run(
        [sys.executable, str(_SCRIPTS / "_serving_model.py"), str(tiny), "10", "exact", "10"],
        check=True,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
    )
    with running_model_server(_served(tiny, scratch / "tiny")) as server:
        rss: int = psutil.Process(server.pid).memory_info().rss
        return rss


def _wait_for_version(server: RunningModelServer, message: bytes, number: int) -> None:
    from tensorflow_serving.apis import predict_pb2

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = predict_pb2.PredictResponse.FromString(ask(server.grpc_target, message))
        if answer.model_spec.version.value == number:
            return
        time.sleep(0.1)
    raise RuntimeError(f"version {number} did not come within 60 s")


def rows(found: dict[str, float]) -> list[dict[str, Any]]:
    floor = max(found["sync_requests_per_s"], found["aio_requests_per_s"])
    found = {
        **found,
        "floor_requests_per_s": floor,
        "share_of_floor": found["server_requests_per_s"] / floor,
        "one_client_p50_over_in_process": found["server_one_client_p50_ms"]
        / found["in_process_p50_ms"],
    }
    bounds = {
        "share_of_floor": (0.35, 0.50, True),
        "requests_per_s_over_against": (1.0, 1.6, True),
        "one_client_p50_over_in_process": (3.5, 2.0, False),
        "reloads_failed_requests": (0, None, False),
        "growth_in_versions": (1.0, None, False),
    }
    table = []
    for name, value in found.items():
        must, aim, larger_is_better = bounds.get(name, (None, None, False))
        unit = next((u for end, u in _UNITS.items() if name.endswith(end)), "")
        table.append(row(name, value, unit, must, aim, larger_is_better=larger_is_better))
    return table


_UNITS = {
    "_ms": "ms",
    "_mb": "MB",
    "_per_s": "1/s",
    "_requests": "requests",
    "_versions": "versions",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--model", type=Path, default=None, help="a model made before")
    parser.add_argument("--against", type=Path, help="another checkout with its .venv")
    parser.add_argument("--skip-reloads", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = args.model or scratch / "model"
        if args.model is None:
            subprocess.run(
                [
                    sys.executable,
                    str(_SCRIPTS / "_serving_model.py"),
                    str(model),
                    str(NUM_CANDIDATES),
                    "scann",
                ],
                check=True,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
            )
        against = args.against.resolve() if args.against else None
        found = measure_throughput(model, scratch, args.rounds, args.seconds, against)
        if not args.skip_reloads:
            found |= measure_reloads(model, scratch)
    table = rows(found)
    about = environment("tensorflow", "scann", "grpcio", "protobuf")
    return report(about, table, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
