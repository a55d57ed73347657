"""Run the model server for ten minutes with new versions, kills, restarts and malformed requests.

Clients continuously send requests over gRPC (asyncio and blocking, single and in batches) and REST.
They compare each answer with that of the same model version in process. In the meantime, new
versions are pushed, and about thirty kinds of malformed requests are sent. In the second half, the
server is also killed or terminated, and started again.

The server must reject all malformed requests, not leak memory or file descriptors, and exit with
status 0 after SIGTERM. Clients with retries must get a correct answer to every well-formed request.
A client without retries may only fail while the server is down.

Usage: python benchmarks/soak.py [--minutes 10] [--candidates 50000] [--json]
"""

import asyncio
import contextlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc
import psutil

from benchmarks._malformed_requests import senders
from benchmarks._processes import measure_call, start_server
from benchmarks._report import Row, environment, options_parser, report, row
from benchmarks._soak_traffic import VARIANTS, Answers, Traffic, make_queries

_KEPT_VERSIONS = 3
# After the server is ready, a client may still wait this long before it reconnects.
_RECONNECT_S = 3.0
_MEGABYTE = 2**20


class Sample(NamedTuple):
    """Memory, file descriptors and threads of the server process at one time."""

    at: float
    rss_mb: float
    descriptors: int
    threads: int


class Server:
    """A model server that can be restarted at the same address."""

    def __init__(self, base_path: Path, log: Path) -> None:
        self._base_path, self._log = base_path, log
        self.process, self.ports = self._start("auto", "auto")
        self.away: list[tuple[float, float]] = []
        self.ended_by_itself = 0
        self.bad_ends: list[int] = []

    def _start(
        self, grpc_port: int | str, rest_port: int | str
    ) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
        flags = [f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
        return start_server(
            self._base_path, self._log, *flags, "--file_system_poll_wait_seconds=0.5"
        )

    def restart(self, number: int) -> None:
        """Stop the server with signal `number`, and start it again."""
        self.ended_by_itself += self.process.poll() is not None
        went_at = time.monotonic()
        self.end(number)
        self.process, _ = self._start(**self.ports)
        self.away.append((went_at, time.monotonic() + _RECONNECT_S))

    def end(self, number: int) -> None:
        """Stop the server with signal `number`; record a status other than 0 after SIGTERM."""
        self.process.send_signal(number)
        status = self.process.wait()
        if number == signal.SIGTERM and status:
            self.bad_ends.append(status)

    def was_away(self, at: float) -> bool:
        """Return whether the server was in an intended downtime at this time."""
        # 0.1 s is a tolerance for the times of failures.
        return any(began - 0.1 <= at <= ended for began, ended in self.away)


async def push_versions(base_path: Path, folder: Path, period_s: float, ends_at: float) -> int:
    """Add new versions to the base path atomically, remove old ones, and return their number."""
    number = 1
    while time.monotonic() < ends_at:
        await asyncio.sleep(period_s)
        number += 1
        aside = base_path / f"incoming-{number}"
        await asyncio.to_thread(shutil.copytree, folder / f"variant_{number % VARIANTS}", aside)
        aside.rename(base_path / str(number))
        shutil.rmtree(base_path / str(number - _KEPT_VERSIONS), ignore_errors=True)
    return number - 1


async def send_malformed(server: Server, ends_at: float) -> Counter[tuple[str, str]]:
    """Send malformed requests, and count them by kind and response."""
    answers: Counter[tuple[str, str]] = Counter()
    options = [("grpc.max_reconnect_backoff_ms", 500)]
    target = f"127.0.0.1:{server.ports['grpc_port']}"
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        kinds = senders(channel, **server.ports)
        while time.monotonic() < ends_at:
            for name, send in kinds.items():
                answers[name, await send()] += 1
                await asyncio.sleep(0.05)
    return answers


async def watch(server: Server, samples: list[Sample], ends_at: float) -> None:
    """Append a sample of the server process to `samples` every 0.5 s."""
    while time.monotonic() < ends_at:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(server.process.pid)
            with process.oneshot():
                rss_mb = process.memory_info().rss / _MEGABYTE
                counts = process.num_fds(), process.num_threads()
            samples.append(Sample(time.monotonic(), rss_mb, *counts))
        await asyncio.sleep(0.5)


async def restart_often(
    server: Server, starts_at: float, ends_at: float, up_s: float
) -> Counter[str]:
    """Restart the server with SIGKILL and SIGTERM alternately; return the number of each."""
    done: Counter[str] = Counter()
    await asyncio.sleep(max(0.0, starts_at - time.monotonic()))
    numbers = [signal.SIGKILL, signal.SIGTERM]
    while time.monotonic() < ends_at:
        number = numbers[done.total() % 2]
        await asyncio.to_thread(server.restart, number)
        done[number.name] += 1
        await asyncio.sleep(max(0.0, min(up_s, ends_at - time.monotonic())))
    return done


async def soak(
    folder: Path, minutes: float, num_candidates: int, answers: Answers
) -> tuple[list[Row], dict[str, Any]]:
    """Run the soak test with the models in a folder.

    The second result has the first failures by type (`wrong`) and the numbers of malformed requests
    by kind and response (`malformed`).
    """
    base_path = folder / "served"
    base_path.mkdir()
    shutil.copytree(folder / f"variant_{1 % VARIANTS}", base_path / "1")
    server = Server(base_path, folder / "server.log")
    began_at = time.monotonic()
    ends_at = began_at + 60 * minutes
    # The last restart must be complete before the end, so that the last requests get answers.
    quiet_at = ends_at - min(30.0, 6 * minutes)
    restarts_from = began_at + 30 * minutes
    traffic = Traffic(make_queries(num_candidates), answers, server.ports, ends_at)
    samples: list[Sample] = []
    try:
        _, reloads, malformed, restarts, _ = await asyncio.gather(
            traffic.run(),
            push_versions(base_path, folder, min(6.0, 6 * minutes), quiet_at),
            send_malformed(server, ends_at),
            restart_often(server, restarts_from, quiet_at, min(20.0, 4 * minutes)),
            watch(server, samples, ends_at),
        )
        server.ended_by_itself += server.process.poll() is not None
    finally:
        server.end(signal.SIGTERM)
    outside = [text for at, text in traffic.failures if not server.was_away(at)]
    accepted = {name for name, answer in malformed if answer == "OK"}
    files = [file for file in (folder / "variant_0").rglob("*") if file.is_file()]
    version_mb = sum(file.stat().st_size for file in files) / _MEGABYTE

    def median(field: str, share_from: float, share_to: float) -> float:
        """Return a median in a part of the first half, in which the server is not restarted."""
        first, last = (
            began_at + share * (restarts_from - began_at) for share in (share_from, share_to)
        )
        inside = (getattr(sample, field) for sample in samples if first <= sample.at < last)
        return float(statistics.median(inside))

    warm_mb = median("rss_mb", 0.2, 0.4)
    growth_mb = median("rss_mb", 0.8, 1.0) - warm_mb
    # One version, and some fragmentation of the heap. A leak of one version per reload would be
    # many times larger.
    allowed_mb = version_mb + 0.05 * warm_mb
    more_descriptors = median("descriptors", 0.8, 1.0) - median("descriptors", 0.2, 0.4)
    failed_once_away = len(traffic.failures) - len(outside)
    rows = [
        row("minutes", round(minutes, 2), "min"),
        row("good_requests_answered", traffic.answered.total(), "requests"),
        row("good_requests_lost", len(traffic.lost), "requests", 0),
        row("wrong_answers", len(traffic.wrong), "answers", 0),
        row("failed_once_while_the_server_was_there", len(outside), "requests", 0),
        row("failed_once_while_it_was_away", failed_once_away, "requests"),
        row("malformed_requests", malformed.total(), "requests"),
        row("malformed_kinds_accepted", len(accepted), "kinds", 0),
        row("versions_pushed", reloads, "versions"),
        row("versions_that_answered", len(traffic.versions), "versions", 2, larger_is_better=True),
        *(row(f"restarts_by_{name}", count, "restarts") for name, count in restarts.items()),
        row("ended_by_itself", server.ended_by_itself, "times", 0),
        row("told_to_end_but_status_not_0", len(server.bad_ends), "times", 0),
        row("version_size", round(version_mb, 1), "MB"),
        row("memory_after_warm_up", round(warm_mb, 1), "MB"),
        row("memory_growth_over_reloads", round(growth_mb, 1), "MB", round(allowed_mb, 1)),
        row("memory_peak", round(max(sample.rss_mb for sample in samples), 1), "MB"),
        row("descriptor_growth_over_reloads", more_descriptors, "descriptors", 4),
        row("threads_at_most", max(sample.threads for sample in samples), "threads"),
    ]
    wrong = [
        *traffic.lost[:5],
        *traffic.wrong[:5],
        *outside[:5],
        *(f"accepted: {name}" for name in sorted(accepted)),
        *(f"ended with status {status} after SIGTERM" for status in server.bad_ends),
    ]
    by_kind: dict[str, dict[str, int]] = {}
    for (name, answer), count in sorted(malformed.items()):
        by_kind.setdefault(name, {})[answer] = count
    return rows, {"wrong": wrong, "malformed": by_kind}


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--candidates", type=int, default=50_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        # TensorFlow only runs in a separate process, so that this one stays light.
        prepare, log = "benchmarks._soak_traffic:prepare_models", Path(folder, "models.log")
        answers = measure_call(prepare, folder, str(options.candidates), log=log)["returned"]
        found, details = asyncio.run(
            soak(Path(folder), options.minutes, options.candidates, answers)
        )
    about = environment("tensorflow", "grpcio")
    missed = report({**about, **(details if options.json else {})}, found, as_json=options.json)
    for text in details["wrong"]:
        print(text, file=sys.stderr)
    return missed


if __name__ == "__main__":
    sys.exit(main())
