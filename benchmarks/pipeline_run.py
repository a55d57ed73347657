"""Measure the time of a whole pipeline run on MovieLens 100K, and the quality of its model.

The time is that of the whole command, including imports, without cached results. The time to only
import TensorFlow and TFX is also listed, because both times depend on the machine. `--against
CHECKOUT` also runs the pipeline of another checkout, which must have its own `.venv`, before and
after this one.

Usage: python benchmarks/pipeline_run.py [--against CHECKOUT] [--json]
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import TWO_TOWER, measure, run_pipeline
from benchmarks._report import Row, options_parser, row, run

IMPORTS = "import models, tensorflow, tfx.components.transform.component, apache_beam"
# Metrics of the popularity baseline, with seen films excluded.
POPULARITY = {"hit_rate@10": 0.0886, "hit_rate@100": 0.4149}


def seconds_of_other(checkout: Path, runs: Path) -> float:
    """Return the time of the same command in another checkout."""
    command = [str(checkout / ".venv/bin/python"), "-c", TWO_TOWER, "run", "--fresh"]
    command += ["--config", "movielens_100k", "--set", f"runs={runs}"]
    started = time.monotonic()
    subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.monotonic() - started


def rows(options: Any, folder: Path) -> Iterator[Row]:
    imports = [sys.executable, "-W", "ignore", "-c", IMPORTS]
    measure(imports, {}, folder / "imports.log")  # fills the file cache
    imports_s = measure(imports, {}, folder / "imports.log")["process_wall_s"]
    against = options.against and Path(options.against).resolve()
    others_s = [seconds_of_other(against, folder / "other")] if against else []
    # The time that the command reports does not include its start-up and exit.
    started = time.monotonic()
    summary = run_pipeline("movielens_100k", folder / "own")
    total_s = time.monotonic() - started
    if summary["pushed_version"] is None:
        sys.exit("the model must pass the gates, but was refused")
    yield row("total_seconds", total_s, "s", 60.0, 45.0)
    if against:
        others_s.append(seconds_of_other(against, folder / "other"))
        yield row("total_over_other", total_s * 2 / sum(others_s), "ratio", 1.2, 1.0)
    yield row("import_seconds", imports_s, "s")
    yield row("total_over_imports", total_s / imports_s, "ratio")
    for name, seconds in summary["component_seconds"].items():
        yield row(f"seconds_{name}", seconds, "s")
    for name, popularity in POPULARITY.items():
        for ranker, metrics in summary["metrics"].items():
            must = popularity if ranker == "model" else None
            yield row(f"{name}_{ranker}", metrics[name], "share", must, larger_is_better=True)


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("--against", help="another checkout with its .venv")
    run(parser, rows, "tfx", "apache-beam", "tensorflow")
