"""Measure the configurations that `two-tower init` drafts for public data sets.

The folder contains DATA/interactions.csv.gz with the columns user_id, item_id and timestamp, and
for beauty items.csv.gz with item_id and attributes; data sets that it lacks are skipped. The
retriever alone is measured, unless with `--set ranking.enabled=true`. `SETTINGS` are those of the
published protocol; all others are drafted.

Usage: python benchmarks/drafts.py [FOLDER] [--only DATA ...] [--set SETTING=VALUE ...] [--json]
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import ROOT, TWO_TOWER, run_pipeline
from benchmarks._report import Row, options_parser, row, run
from benchmarks.quality import ranking_rows

_FROM_CUT = (
    "split.eval_from=2001-09-09T01:48:20",  # the times say only which events are held out
    "evaluation.protocol=from_cut",
    "evaluation.baselines=[popularity,item_knn,svd]",
)
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "beauty": ("split.method=leave_last_out", "evaluation.baselines=[popularity,sequential_rules]"),
    "citeulike": _FROM_CUT,
    "lastfm": _FROM_CUT,
}
_ALL = ("ranking.enabled=false", "evaluation.ks=[10,20]", "evaluation.max_queries=1000000")
# `must` and `aim` of the model.
GOALS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "beauty": {"hit_rate@10": (0.110, 0.118), "ndcg@10": (0.068, 0.073)},
    "citeulike": {"query_hit_rate@20": (0.305, 0.330), "query_ndcg@20": (0.257, 0.280)},
    "lastfm": {"query_hit_rate@20": (0.288, 0.310), "query_ndcg@20": (0.288, 0.310)},
}
FIT_CPU_S = 180.0


def draft(data: str, source: Path, config: Path) -> None:
    """Write the configuration that `two-tower init` drafts for a data set."""
    inputs = {
        "--events": source / data / "interactions.csv.gz",
        "--query-id": "user_id",
        "--candidate-id": "item_id",
        "--timestamp": "timestamp",
        "--output": config,
    }
    if (catalogue := source / data / "items.csv.gz").exists():
        inputs["--candidates"] = catalogue
    words = [str(word) for option in inputs.items() for word in option]
    command = [sys.executable, "-W", "ignore", "-c", TWO_TOWER, "init", *words]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)


def rows(options: Any, folder: Path) -> Iterator[Row]:
    source = Path(options.folder).absolute()
    for data in options.only or SETTINGS:
        if not (source / data).exists():
            print(f"{data} is skipped, because {source / data} does not exist", file=sys.stderr)
            continue
        config = folder / f"{data}.yaml"
        draft(data, source, config)
        settings = [*_ALL, *SETTINGS[data], *options.set]
        summary = run_pipeline(str(config), folder / data, *settings)
        for metric, bounds in GOALS[data].items():
            for ranker, metrics in summary["metrics"].items():
                of_model = bounds if ranker == "model" else ()
                name = f"{data}: {metric} of {ranker}"
                yield row(name, metrics[metric], "share", *of_model, larger_is_better=True)
            runs = str(folder / data)
            yield from ranking_rows(str(config), runs, summary["metrics"], metric)
        yield row(f"{data}: CPU of the training", summary["fit"]["cpu_seconds"], "s", FIT_CPU_S)
        yield row(f"{data}: epochs", summary["fit"]["epochs"], "")


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("folder", nargs="?", default="data", help="folder of the data sets")
    parser.add_argument("--only", nargs="*", choices=list(SETTINGS), help="only these data sets")
    parser.add_argument("--set", nargs="*", default=[], help="further settings of the runs")
    run(parser, rows, "tensorflow", "tfx", "numpy")
