"""Measure models of other libraries on public data sets, to compare them with `drafts.py`.

Each library is installed from the package index into an environment of its own. The models learn
from the same events and answer the same queries over the whole catalogue as this project's. The
metrics are computed here from their lists. Their cost is that from the events in memory to the last
list. The data are those of `drafts.py`, and MovieLens 100K.

Usage: python benchmarks/peers.py [FOLDER] [--only DATA ...] [--models MODEL ...] [--json]
"""

import inspect
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks._peer_models import MODELS
from benchmarks._processes import ROOT
from benchmarks._report import Row, options_parser, row, run
from components.retrieval_evaluator.metrics import RankMetrics

Ints = npt.NDArray[np.int64]

SCRIPT = ROOT / "benchmarks" / "_peer_models.py"
# What is installed for each model.
PACKAGES = {
    "als": ("implicit==0.7.3",),
    "item_knn": ("implicit==0.7.3",),
    "sasrec": ("rectools[torch]==0.19.0",),
}


class Protocol(NamedTuple):
    """The split of a data set and its metrics.

    Attributes:
        test_from: First second of the test events. None: the last event of each user is the test.
        metrics: The metrics, as `RankMetrics` names them.
        is_rolling: Whether each test event is predicted from all events before it, which may be
            predicted again, instead of all test events of a user from the training events.
        sasrec_epochs: Number of epochs of SASRec; 0 without an order of the events.
    """

    test_from: int | None
    metrics: tuple[str, str]
    is_rolling: bool = False
    sasrec_epochs: int = 20


LAST = Protocol(None, ("hit_rate@10", "ndcg@10"))
SETS = Protocol(1_000_000_100, ("query_hit_rate@20", "query_ndcg@20"), sasrec_epochs=0)
SESSIONS = Protocol(1_431_307_984, ("hit_rate@20", "mrr@20"), is_rolling=True, sasrec_epochs=3)
DATA = {
    "beauty": LAST,
    "movielens_100k": LAST,
    "citeulike": SETS,
    "lastfm": SETS,
    "retailrocket": SESSIONS,
}
K = 20


def read_events(folder: Path) -> pl.DataFrame:
    """Return the events of a data set, in the order of time for each user."""
    (path,) = folder.glob("interactions.csv*")
    events = pl.read_csv(path).rename(
        {"movie_id": "item_id", "session_id": "user_id"}, strict=False
    )
    columns = ("user_id", "item_id", "timestamp")
    return events.select(columns).sort("user_id", "timestamp", maintain_order=True)


def cases(events: pl.DataFrame, protocol: Protocol) -> dict[str, Any]:
    """Return the training events, the histories and the test events, as indices."""
    if protocol.test_from is None:
        is_test = pl.int_range(pl.len()).over("user_id") == pl.len().over("user_id") - 1
    else:
        is_test = pl.col("timestamp") >= protocol.test_from
    events = events.with_columns(
        pl.col("user_id").rank("dense").cast(pl.Int64) - 1,
        pl.col("item_id").rank("dense").cast(pl.Int64) - 1,
        is_test.alias("is_test"),
    )
    train, test = events.filter(~pl.col("is_test")), events.filter("is_test")
    history = train
    if protocol.is_rolling:
        history, test = _prefixes(test)
    return {
        "train_rows": train["user_id"].to_numpy(),
        "train_items": train["item_id"].to_numpy(),
        "history_rows": history["user_id"].to_numpy(),
        "history_items": history["item_id"].to_numpy(),
        "test_rows": test["user_id"].to_numpy(),
        "test_items": test["item_id"].to_numpy(),
        "num_items": int(events["item_id"].max()) + 1,  # type: ignore[arg-type]
        "k": K,
        "exclude_seen": not protocol.is_rolling,
        "epochs": protocol.sasrec_epochs,
    }


def _prefixes(test: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the events before each test event but the first of a user, and these test events.

    Both have the number of the test event as `user_id`.
    """
    numbered = test.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    targets = numbered.filter(pl.int_range(pl.len()).over("user_id") > 0)
    pairs = targets.join(numbered, on="user_id", suffix="_before")
    before = pairs.filter(pl.col("row_before") < pl.col("row")).sort("row", "row_before")
    history = before.select(user_id="row", item_id="item_id_before")
    return history, targets.select("item_id", user_id="row")


def metrics(lists: Ints, rows: Ints, items: Ints) -> RankMetrics:
    """Return the metrics of recommended lists `[num_users, K]`; an item beyond K has no rank."""
    is_hit = lists[rows] == items[:, None]
    ranks = np.where(is_hit.any(1), is_hit.argmax(1) + 1, np.iinfo(np.int32).max)
    return RankMetrics(ranks, rows, rows, items)


def package(model: str) -> str:
    """Return the name of the package with a model, without its version and extras."""
    return PACKAGES[model][0].partition("=")[0].partition("[")[0]


def interpreter(model: str, folder: Path) -> str:
    """Return the Python of the environment with the library of a model, which is created once."""
    home = folder / package(model)
    python, finished = home / "bin" / "python", home / "finished"
    if not finished.exists():
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES[model]], check=True)
        finished.touch()
    return str(python)


def peer_rows(
    data: str, model: str, python: str, found: dict[str, Any], folder: Path
) -> Iterator[Row]:
    """Fit a model of another library, and yield its metrics and cost."""
    path, output = folder / f"{data}.npz", folder / f"{data}_{model}"
    np.savez(path, package=package(model), **found)
    # implicit starts its own threads, and those of OpenBLAS would only slow it down.
    variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [python, "-W", "ignore", SCRIPT, model, path, output]
    subprocess.run(command, check=True, env=variables, stdout=subprocess.DEVNULL)
    lists = np.load(f"{output}.npy")
    measured = metrics(lists, found["test_rows"], found["test_items"])
    for name in DATA[data].metrics:
        sums, weights = measured.per_query(name)
        error = float((sums / weights).std() / np.sqrt(len(sums)))
        yield row(f"{data} {model} {name}", measured.value(name), "share", standard_error=error)
    figures = json.loads(Path(f"{output}.json").read_text())
    yield row(f"{data} {model} CPU", figures["cpu_s"], "s")
    yield row(f"{data} {model} peak", figures["peak_mb"], "MB")
    lines = inspect.getsource(MODELS[model]).splitlines()
    yield row(f"{data} {model} code", len(lines), "lines")  # without those that read and evaluate


def rows(options: Any, folder: Path) -> Iterator[Row]:
    for data in options.only or DATA:
        source = Path(options.folder) / data
        if not source.exists():
            print(f"{data} is skipped, because {source} does not exist", file=sys.stderr)
            continue
        found = cases(read_events(source), DATA[data])
        for model in options.models or PACKAGES:
            if model == "sasrec" and not DATA[data].sasrec_epochs:
                continue
            python = interpreter(model, options.environments or folder)
            yield from peer_rows(data, model, python, found, folder)


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("folder", nargs="?", default="data", help="folder of the data sets")
    parser.add_argument("--only", nargs="*", choices=DATA, help="data sets")
    parser.add_argument("--models", nargs="*", choices=PACKAGES)
    parser.add_argument("--environments", type=Path, help="folder in which environments are kept")
    run(parser, rows, "numpy", "polars")
