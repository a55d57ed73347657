"""Measure how fast the explorer answers on MovieLens 100K.

One client asks `two-tower explore` for whole pages over one connection, as the script of the page
does. Every page has the recommendations and their reasons, and each kind but the first two adds
something to those of a known query. The first page of each kind, which starts a model or fits a
baseline, is not counted.

Usage: python benchmarks/explorer.py [--json] [--requests N] [--runs FOLDER]
"""

import http.client
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import ROOT, TWO_TOWER, run_pipeline
from benchmarks._report import Row, options_parser, row, run
from pipeline.config.file import load
from pipeline.explore.source import Histories, Items

CONFIG = "movielens_100k"
MUST, AIM = 100.0, 50.0
ITEMS_OF_A_SHORT_HISTORY = 3


def kinds() -> dict[str, Callable[[], list[tuple[str, str]]]]:
    """Return functions that draw the parameters of a page, by the kind of its answer."""
    config = load(CONFIG, [])
    histories = Histories(config)
    items, draw = Items(config, histories), random.Random(7)
    catalogue = items.search("", len(items))

    def query() -> tuple[str, str]:
        return ("q", draw.choice(histories.query_ids))

    def item() -> str:
        return draw.choice(catalogue)

    return {
        "known query": lambda: [query()],
        "picked items": lambda: [("h", item()) for _ in range(ITEMS_OF_A_SHORT_HISTORY)],
        "all shares": lambda: [query(), ("w", item())],
        "similar items": lambda: [query(), ("s", item())],
        "search": lambda: [query(), ("t", items.name(item())[: draw.randint(1, 8)].strip())],
        "with item_knn": lambda: [query(), ("c", "baseline-item_knn")],
        "with ease": lambda: [query(), ("c", "baseline-ease")],
    }


@contextmanager
def explorer(runs: Path) -> Iterator[str]:
    """Run the explorer of the pushed model, and yield its address."""
    command = [sys.executable, "-c", TWO_TOWER, "explore", "--config", CONFIG, "--port", "0"]
    process = subprocess.Popen(
        [*command, "--set", f"runs={runs}"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            sys.exit("the explorer did not start")
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def page_ms(connection: http.client.HTTPConnection, parameters: list[tuple[str, str]]) -> float:
    """Return the time of a page, which must have every list that it asks for."""
    path = f"/?{urlencode(parameters)}"
    started = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    found_ms = (time.perf_counter() - started) * 1e3
    if answer.status != 200 or 'role="alert"' in text or 'class="score"' not in text:
        sys.exit(f"{path} has no answer: {answer.status} {text[:500]}")
    return found_ms


def rows(options: Any, folder: Path) -> Iterator[Row]:
    runs = Path(options.runs) if options.runs else folder
    if not options.runs:
        run_pipeline(CONFIG, runs)
    pages = kinds()
    with explorer(runs.absolute()) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc)
        for kind, draw in pages.items():
            page_ms(connection, draw())
            found = [page_ms(connection, draw()) for _ in range(options.requests)]
            yield row(f"{kind}: p50", statistics.median(found), "ms")
            yield row(f"{kind}: p95", statistics.quantiles(found, n=20)[-1], "ms", MUST, AIM)


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--runs", help="folder with a pushed model, such as runs")
    run(parser, rows, "tensorflow", "aiohttp", "jinja2")
