"""Measure how well the task `rating` predicts held-out ratings of MovieLens 100K.

A random fifth of the ratings is held out. The model is compared with the mean rating and with a
model of biases of users and films.

Usage: python benchmarks/rating.py [--set SETTING=VALUE ...] [--json]
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import run_pipeline
from benchmarks._report import Row, options_parser, row, run

CONFIG = "movielens_100k"
SETTINGS = ("ranking.enabled=true", "ranking.tasks={rating: {loss: squared_error}}")
# Five-fold figures of Surprise: .944 for biases, .934 for SVD, .919 for SVD++.
MUST, AIM = 0.925, 0.905


def rows(options: Any, folder: Path) -> Iterator[Row]:
    summary = run_pipeline(CONFIG, folder, *SETTINGS, *options.set)
    (path,) = folder.rglob("evaluation.json")
    (rating,) = json.loads(path.read_text())["ranking"]["tasks"].values()
    for name, metrics in rating["metrics"].items():
        bounds = (MUST, AIM) if name == "model" else ()
        yield row(f"RMSE of {name}", metrics["rmse"], "stars", *bounds)
        yield row(f"calibration error of {name}", metrics["calibration_error"], "stars")
    yield row("held-out ratings", rating["num_events"], "ratings")
    yield row("CPU of the training", summary["fit"]["cpu_seconds"], "s")
    for name in ("ranked", "model", "retrieved"):
        if name in summary["metrics"]:
            yield row(f"hit_rate@10 of {name}", summary["metrics"][name]["hit_rate@10"], "share")


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("--set", nargs="*", default=[], help="further settings of the run")
    run(parser, rows, "tensorflow", "tfx", "numpy")
