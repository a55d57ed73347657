"""Compare the latency of retrieval alone with retrieval and ranking, in one served model.

One client asks the signatures `retrieve` and `serving_default` of a model server alternately, with
histories of ten events. The models are that of `movielens_100k_temporal`, and models with 100,000
generated candidates, 64 dimensions and a random ranker.

Usage: python benchmarks/ranking_latency.py [--json] [--rounds N] [--seconds S] [--model DIRECTORY]
"""

import base64
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks._processes import measure_call, run_pipeline
from benchmarks._report import Row, options_parser, row, run
from benchmarks._serving_model import predict_body
from serving.launcher import running_model_server
from serving.loadtest import LoadPlan, drive_in_processes

MUST, AIM = 2.0, 1.4
NUM_CANDIDATES = 100_000
EVENTS = 10
SIGNATURES = {"retrieval": "retrieve", "ranking": "serving_default"}


def requests(model: Path, signature: str, count: int = 500) -> list[bytes]:
    """Return requests with random histories, which are ten successive candidates."""
    lines = (model / "assets" / "candidate_ids.base64").read_bytes().split()
    ids = [base64.urlsafe_b64decode(line + b"=" * (-len(line) % 4)) for line in lines]
    starts = np.random.default_rng(7).integers(0, len(ids) - EVENTS, count)
    return [
        predict_body(signature=signature, history=([1, EVENTS], ids[start : start + EVENTS]))
        for start in starts
    ]


def p50_ms(target: str, messages: list[bytes], seconds: float) -> float:
    plan = LoadPlan(target, messages, seconds, concurrency=1, connections=1, warmup_s=0.3)
    found = drive_in_processes(plan)
    if found.messages:
        raise RuntimeError(f"requests failed: {found.messages}")
    return found.quantile_s(0.5) * 1e3


def latency_rows(name: str, served: Path, rounds: int, seconds: float) -> Iterator[Row]:
    """Yield the medians of a served model; `served` has its versions."""
    [model] = (path for path in served.iterdir() if path.name.isdecimal())
    messages = {kind: requests(model, signature) for kind, signature in SIGNATURES.items()}
    found: dict[str, list[float]] = {kind: [] for kind in SIGNATURES}
    with running_model_server(served) as server:
        for kind in SIGNATURES:
            p50_ms(server.grpc_target, messages[kind], 1.0)  # warm-up
        for number in range(rounds):
            # Reverse every other round, so that trends in the machine's load cancel out.
            for kind in list(SIGNATURES)[:: -1 if number % 2 else 1]:
                found[kind].append(p50_ms(server.grpc_target, messages[kind], seconds))
    for kind, values in found.items():
        yield row(f"{name}: p50 of {kind}", statistics.median(values), "ms")
    # The load of the machine is similar within a round.
    pairs = zip(found["ranking"], found["retrieval"], strict=True)
    ratio = statistics.median(ranking / retrieval for ranking, retrieval in pairs)
    yield row(f"{name}: ranking over retrieval", ratio, "ratio", MUST, AIM)


def generated(folder: Path, backend: str) -> Path:
    """Export a model with generated candidates and a ranking stage, and return its base path."""
    folder.mkdir()
    measure_call(
        "benchmarks._serving_model:prepare_export",
        str(folder / "1"), str(NUM_CANDIDATES), backend, "1000", "200",
        log=folder.with_suffix(".log"),
    )  # fmt: skip
    return folder


def rows(options: Any, folder: Path) -> Iterator[Row]:
    measured = options.rounds, options.seconds
    if options.model:
        (folder / "served").mkdir()
        (folder / "served" / "1").symlink_to(Path(options.model).resolve())
        yield from latency_rows("model", folder / "served", *measured)
        return
    summary = run_pipeline("movielens_100k_temporal", folder / "runs")
    if summary["pushed_version"] is None:
        sys.exit("the model must pass the gates, but was refused")
    yield from latency_rows("MovieLens 100K", Path(summary["serving_dir"]), *measured)
    for backend in ("exact", "scann"):
        base_path = generated(folder / backend, backend)
        yield from latency_rows(f"100,000 candidates, {backend}", base_path, *measured)


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--model", help="only this model, such as a pushed version")
    run(parser, rows, "tensorflow", "scann", "grpcio")
