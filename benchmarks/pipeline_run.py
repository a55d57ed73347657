"""The main job on MovieLens 100K: how long a whole run takes and how good its model is.

The whole command is measured, imports included, with nothing from the cache. It stands beside the
time that the same process takes to import TensorFlow and TFX alone, because that drifts with the
machine as everything else does.

Usage: python benchmarks/pipeline_run.py [--json]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks._report import environment, report, row  # noqa: E402

IMPORTS = "import models, tensorflow, tfx.components.transform.component, apache_beam"


def measure_run(folder: str) -> dict[str, Any]:
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]
    command += ["run", "--config", "movielens_100k", "--set", f"runs={folder}", "--fresh", "--json"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    # From outside: what the command itself says misses its start and its end, and is rounded.
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
    measure_imports()  # files come from the disk the first time
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
    # What popularity reaches on this protocol with seen films excluded, in the reference run.
    for name, popularity in (("hit_rate@10", 0.0886), ("hit_rate@100", 0.4149)):
        for contender, metrics in summary["metrics"].items():
            must = popularity if contender == "model" else None
            found.append(
                row(f"{name}_{contender}", metrics[name], "share", must, larger_is_better=True)
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    about = environment("tfx", "apache-beam", "tensorflow")
    return report(about, rows(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
