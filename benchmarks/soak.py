"""Run the model server for ten minutes with new versions, kills, restarts and malformed requests.

Clients continuously send requests over gRPC (asyncio and blocking, single and in batches) and REST.
They compare each answer with that of the same model version in process. In the meantime:

- New versions are pushed one after the other. The memory and the file descriptors of the server
  process are recorded.
- In the second half, the server is also killed or terminated, and started again.
- About thirty kinds of malformed requests are sent, which the server must reject.

The benchmark has these requirements:

- Clients with retries get a correct answer to every well-formed request.
- A client without retries only fails while the server is down.
- No malformed request is accepted.
- The server does not leak memory or file descriptors, and exits with status 0 after SIGTERM.

Usage: python benchmarks/soak.py [--minutes 10] [--candidates 50000] [--json]
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc
import psutil

from benchmarks._malformed_requests import senders
from benchmarks._report import environment, report, row
from benchmarks._soak_traffic import Exam, Traffic

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = 4
_KEPT_VERSIONS = 3
_START_TIMEOUT_S = 120.0
# After the server is ready, a client may still wait this long before it reconnects.
_RECONNECT_S = 3.0
_MEGABYTE = 2**20


@dataclass
class Sample:
    """Memory, file descriptors and threads of the server process at one time."""

    at: float
    pid: int
    rss_mb: float
    descriptors: int
    threads: int


@dataclass
class Server:
    """A model server that can be restarted at the same address.

    Attributes:
        away: Start and end times of its intended downtimes.
        ended_by_itself: Number of times that it exited without a signal.
        bad_ends: Exit statuses other than 0 after SIGTERM.
    """

    base_path: Path
    log: Path
    grpc_port: int
    rest_port: int
    away: list[tuple[float, float]] = field(default_factory=list)
    ended_by_itself: int = 0
    bad_ends: list[int] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start the server and wait until a version is available."""
        began_at = time.monotonic()
        ready = self.log.with_suffix(".ready")
        ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "serving.server", "--model_name=retrieval",
                    f"--model_base_path={self.base_path}", f"--port={self.grpc_port}",
                    f"--rest_api_port={self.rest_port}", "--file_system_poll_wait_seconds=0.5",
                    f"--ready_file={ready}", f"--parent_pid={os.getpid()}",
                ],
                cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > began_at + _START_TIMEOUT_S:
                raise SystemExit(f"the server did not start:\n{self.log.read_text()[-3000:]}")
            await asyncio.sleep(0.05)

    async def restart(self, number: int) -> None:
        """Stop the server with signal `number`, and start it again."""
        assert self.process is not None
        if self.process.poll() is not None:
            self.ended_by_itself += 1
        went_at = time.monotonic()
        await asyncio.to_thread(self.end, number)
        await self.start()
        self.away.append((went_at, time.monotonic() + _RECONNECT_S))

    def end(self, number: int) -> None:
        """Stop the server with signal `number`; record a status other than 0 after SIGTERM."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait()
        if number == signal.SIGTERM and status:
            self.bad_ends.append(status)

    def was_away(self, at: float) -> bool:
        """Return whether the server was in an intended downtime at this time."""
        # 0.1 s is a tolerance for the times of failures.
        return any(began - 0.1 <= at <= ended for began, ended in self.away)


async def push_versions(base_path: Path, folder: Path, period_s: float, ends_at: float) -> int:
    """Add new versions to the base path atomically, and remove old ones.

    Returns:
        The number of new versions.
    """
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
    target = f"127.0.0.1:{server.grpc_port}"
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        kinds = senders(channel, "127.0.0.1", server.grpc_port, server.rest_port)
        while time.monotonic() < ends_at:
            for name, send in kinds.items():
                answers[name, await send()] += 1
                await asyncio.sleep(0.05)
    return answers


async def watch(server: Server, samples: list[Sample], ends_at: float) -> None:
    """Append a sample of the server process to `samples` every 0.5 s."""
    while time.monotonic() < ends_at:
        assert server.process is not None
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(server.process.pid)
            with process.oneshot():
                rss_mb = process.memory_info().rss / _MEGABYTE
                descriptors, threads = process.num_fds(), process.num_threads()
            now = time.monotonic()
            samples.append(Sample(now, process.pid, rss_mb, descriptors, threads))
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
        await server.restart(number)
        done[number.name] += 1
        await asyncio.sleep(max(0.0, min(up_s, ends_at - time.monotonic())))
    return done


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Outcome:
    """The result of a soak test.

    Attributes:
        rows: The result rows.
        wrong: The first few failures of each type.
        malformed: Number of malformed requests by kind and response.
    """

    rows: list[dict[str, Any]]
    wrong: list[str]
    malformed: dict[str, dict[str, int]]


async def soak(folder: Path, minutes: float) -> Outcome:
    """Run the soak test with the models in a folder."""
    base_path = folder / "served"
    base_path.mkdir()
    shutil.copytree(folder / f"variant_{1 % VARIANTS}", base_path / "1")
    server = Server(base_path, folder / "server.log", free_port(), free_port())
    await server.start()
    began_at = time.monotonic()
    ends_at = began_at + 60 * minutes
    # The last restart must be complete before the end, so that the last requests get answers.
    quiet_at = ends_at - min(30.0, 6 * minutes)
    restarts_from = began_at + 30 * minutes
    exam = Exam(folder, VARIANTS)
    rest_url = f"http://127.0.0.1:{server.rest_port}"
    traffic = Traffic(exam, f"127.0.0.1:{server.grpc_port}", rest_url, ends_at)
    samples: list[Sample] = []
    try:
        _, reloads, malformed, restarts, _ = await asyncio.gather(
            traffic.run(),
            push_versions(base_path, folder, min(6.0, 6 * minutes), quiet_at),
            send_malformed(server, ends_at),
            restart_often(server, restarts_from, quiet_at, min(20.0, 4 * minutes)),
            watch(server, samples, ends_at),
        )
        assert server.process is not None
        server.ended_by_itself += server.process.poll() is not None
    finally:
        if server.process is not None:
            server.end(signal.SIGTERM)
    tally = traffic.tally
    outside = [text for at, text in tally.failures if not server.was_away(at)]
    accepted = {name for name, answer in malformed if answer == "OK"}
    files = [file for file in (folder / "variant_0").rglob("*") if file.is_file()]
    version_mb = sum(file.stat().st_size for file in files) / _MEGABYTE
    # Only the first half, in which the server is not restarted: after warm-up, and at its end.
    first = [sample for sample in samples if sample.at < restarts_from]
    warm = [s for s in first if 0.2 <= (s.at - began_at) / (restarts_from - began_at) < 0.4]
    last = [s for s in first if (s.at - began_at) / (restarts_from - began_at) >= 0.8]
    warm_mb = statistics.median(s.rss_mb for s in warm)
    growth_mb = statistics.median(s.rss_mb for s in last) - warm_mb
    # One version, and some fragmentation of the heap. A leak of one version per reload would be
    # many times larger.
    allowed_mb = version_mb + 0.05 * warm_mb
    more_descriptors = statistics.median(s.descriptors for s in last) - statistics.median(
        s.descriptors for s in warm
    )
    rows = [
        row("minutes", round(minutes, 2), "min"),
        row("good_requests_answered", tally.answered.total(), "requests"),
        row("good_requests_lost", len(tally.lost), "requests", 0),
        row("wrong_answers", len(tally.wrong), "answers", 0),
        row("failed_once_while_the_server_was_there", len(outside), "requests", 0),
        row("failed_once_while_it_was_away", len(tally.failures) - len(outside), "requests"),
        row("malformed_requests", malformed.total(), "requests"),
        row("malformed_kinds_accepted", len(accepted), "kinds", 0),
        row("versions_pushed", reloads, "versions"),
        row("versions_that_answered", len(tally.versions), "versions", 2, larger_is_better=True),
        *(row(f"restarts_by_{name}", count, "restarts") for name, count in restarts.items()),
        row("ended_by_itself", server.ended_by_itself, "times", 0),
        row("told_to_end_but_status_not_0", len(server.bad_ends), "times", 0),
        row("version_size", round(version_mb, 1), "MB"),
        row("memory_after_warm_up", round(warm_mb, 1), "MB"),
        row("memory_growth_over_reloads", round(growth_mb, 1), "MB", round(allowed_mb, 1)),
        row("memory_peak", round(max(s.rss_mb for s in samples), 1), "MB"),
        row("descriptor_growth_over_reloads", more_descriptors, "descriptors", 4),
        row("threads_at_most", max(s.threads for s in samples), "threads"),
    ]
    wrong = [
        *tally.lost[:5],
        *tally.wrong[:5],
        *outside[:5],
        *(f"accepted: {name}" for name in sorted(accepted)),
        *(f"ended with status {status} after SIGTERM" for status in server.bad_ends),
    ]
    by_kind: dict[str, dict[str, int]] = {}
    for (name, answer), count in sorted(malformed.items()):
        by_kind.setdefault(name, {})[answer] = count
    return Outcome(rows, wrong, by_kind)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--candidates", type=int, default=50_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak_") as scratch:
        folder = Path(scratch)
        # TensorFlow only runs in a separate process, so that this one stays light.
        script = str(ROOT / "benchmarks" / "_soak_model.py")
        making = [sys.executable, script, scratch, str(options.candidates)]
        subprocess.run(making, check=True, cwd=ROOT)
        outcome = asyncio.run(soak(folder, options.minutes))
    about = environment("tensorflow", "grpcio")
    if options.json:
        more = {"wrong": outcome.wrong, "malformed": outcome.malformed}
        return report({**about, **more}, outcome.rows, as_json=True)
    missed = report(about, outcome.rows, as_json=False)
    for text in outcome.wrong:
        print(text)
    return missed


if __name__ == "__main__":
    sys.exit(main())
