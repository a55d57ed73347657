"""Measure the time of a whole pipeline run on MovieLens 100K, and the quality of its model.

The time is that of the whole command, including imports, without cached results. The time to only
import TensorFlow and TFX is also listed, because both times depend on the machine.

Usage: python benchmarks/pipeline_run.py [--json]
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks._report import environment, options_parser, report, row  # noqa: E402

IMPORTS = "import models, tensorflow, tfx.components.transform.component, apache_beam"


def measure_run(folder: str) -> dict[str, Any]:
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]
    command += ["run", "--config", "movielens_100k", "--set", f"runs={folder}", "--fresh", "--json"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    # The time that the command reports does not include its start-up and exit.
    took_s = time.monotonic() - started
    if done.returncode:
        sys.exit(f"the run failed:\n{done.stderr}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return {**summary, "total_seconds": took_s}


def measure_imports() -> float:
    started = time.monotonic()
    command = [sys.executable, "-W", "ignore", "-c", IMPORTS]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - started


def rows() -> list[dict[str, Any]]:
    measure_imports()  # fills the file cache
    imports_s = measure_imports()
    with tempfile.TemporaryDirectory() as folder:
        summary = measure_run(folder)
    found = [
        row("total_seconds", summary["total_seconds"], "s", 60.0, 45.0),
        row("import_seconds", imports_s, "s"),
        row("total_over_imports", summary["total_seconds"] / imports_s, "ratio"),
    ]
    for name, seconds in summary["component_seconds"].items():
        found.append(row(f"seconds_{name}", seconds, "s"))
    # The bounds are the metrics of the popularity baseline, with seen films excluded.
    for name, popularity in (("hit_rate@10", 0.0886), ("hit_rate@100", 0.4149)):
        for ranker, metrics in summary["metrics"].items():
            must = popularity if ranker == "model" else None
            found.append(
                row(f"{name}_{ranker}", metrics[name], "share", must, larger_is_better=True)
            )
    return found


def main() -> int:
    parser = options_parser(__doc__)
    options = parser.parse_args()
    about = environment("tfx", "apache-beam", "tensorflow")
    return report(about, rows(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
