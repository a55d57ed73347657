"""Measure the configurations that `two-tower init` drafts for public and generated data sets.

The folder contains DATA/interactions.csv.gz with the columns user_id, item_id and timestamp, and
for beauty items.csv.gz with item_id and attributes, which `beauty_ids` does without; data sets that
it lacks are skipped. The retriever alone is measured, unless with `--set ranking.enabled=true`.
`SETTINGS` are those of the published protocol; all others are drafted.

`news` and `shop` are generated (`_generated_logs.py`), and everything is drafted, also the ranking
stage. What is served must be available, and candidates without training events must be found more
often than by the baseline `content`.

Usage: python benchmarks/drafts.py [FOLDER] [--only DATA ...] [--set SETTING=VALUE ...] [--json]
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks._generated_logs import add_products, write_news, write_shop
from benchmarks._processes import ROOT, TWO_TOWER, measure, run_pipeline
from benchmarks._report import Row, options_parser, row, run
from benchmarks.quality import ranking_rows

_FROM_CUT = (
    "split.eval_from=2001-09-09T01:48:20",  # the times say only which events are held out
    "evaluation.protocol=from_cut",
    "evaluation.baselines=[popularity,item_knn,svd]",
)
_LAST_OUT = ("split.method=leave_last_out", "evaluation.baselines=[popularity,sequential_rules]")
_WITHOUT_CATALOGUE = "_ids"
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "beauty": _LAST_OUT,
    "beauty_ids": _LAST_OUT,
    "citeulike": _FROM_CUT,
    "lastfm": _FROM_CUT,
}
_ALL = ("ranking.enabled=false", "evaluation.ks=[10,20]", "evaluation.max_queries=1000000")
# `must` and `aim` of the model.
GOALS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "beauty": {"hit_rate@10": (0.110, 0.118), "ndcg@10": (0.068, 0.073)},
    "beauty_ids": {"hit_rate@10": (0.106, 0.112), "ndcg@10": (0.065, 0.069)},
    "citeulike": {"query_hit_rate@20": (0.305, 0.330), "query_ndcg@20": (0.257, 0.280)},
    "lastfm": {"query_hit_rate@20": (0.288, 0.310), "query_ndcg@20": (0.288, 0.310)},
}
FIT_CPU_S = 180.0
GENERATED: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "news": (write_news, "news"),
    "shop": (write_shop, "purchases"),
}
NEW_PRODUCTS = 100_000
_COLD = "hit_rate@100"


def draft(data: str, source: Path, config: Path, preset: str | None = None) -> None:
    """Write the configuration that `two-tower init` drafts for a data set."""
    inputs: dict[str, Any] = {
        "--events": source_folder(data, source) / "interactions.csv.gz",
        "--query-id": "user_id",
        "--candidate-id": "item_id",
        "--timestamp": "timestamp",
        "--output": config,
    }
    if (catalogue := source / data / "items.csv.gz").exists():
        inputs["--candidates"] = catalogue
    if preset is not None:
        inputs["--preset"] = preset
    words = [str(word) for option in inputs.items() for word in option]
    command = [sys.executable, "-W", "ignore", "-c", TWO_TOWER, "init", *words]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)


def source_folder(data: str, source: Path) -> Path:
    """Return the folder of a data set."""
    return source / data.removesuffix(_WITHOUT_CATALOGUE)


def rows(options: Any, folder: Path) -> Iterator[Row]:
    source = Path(options.folder).absolute()
    for data in options.only or (*SETTINGS, *GENERATED):
        if data in GENERATED:
            yield from generated_rows(data, folder, options.set)
            continue
        if not (path := source_folder(data, source)).exists():
            print(f"{data} is skipped, because {path} does not exist", file=sys.stderr)
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


def generated_rows(data: str, folder: Path, settings: list[str]) -> Iterator[Row]:
    write, preset = GENERATED[data]
    write(folder / data)
    config = folder / f"{data}.yaml"
    draft(data, folder, config, preset)
    runs = folder / "runs" / data
    summary = run_pipeline(str(config), runs, *settings)
    (evaluation,) = runs.rglob("evaluation.json")
    slices = json.loads(evaluation.read_text(encoding="utf-8"))["slices"]["candidate"]
    number = sum(of["num_events"] for of in slices.values())
    yield row(f"{data}: cold share of targets", slices["cold"]["num_events"] / number, "share")
    cold = slices["cold"]["metrics"]
    for ranker, metrics in cold.items():
        must = cold["content"][_COLD] if (data, ranker) == ("news", "model") else None
        name = f"{data}: {_COLD} of {ranker}, cold"
        yield row(name, metrics[_COLD], "share", must, larger_is_better=True)
    for ranker, metrics in summary["metrics"].items():
        yield row(f"{data}: hit_rate@10 of {ranker}", metrics["hit_rate@10"], "share")
    pushed = summary["pushed_version"]
    passed = float(pushed is not None)
    yield row(f"{data}: all gates passed", passed, "", 1.0, larger_is_better=True)
    if passed:
        version = Path(summary["serving_dir"]) / str(pushed)
        share = unavailable_share(folder / data, version)
        yield row(f"{data}: not available, of what is served", share, "share", 0.0)
        if data == "shop":
            add_products(folder / data / "items.csv.gz", NEW_PRODUCTS)
            command = [sys.executable, "-c", TWO_TOWER, "index", "--config", str(config)]
            command += ["--set", f"runs={runs}"]
            spent = measure(command, {}, folder / "index.log")["process_wall_s"]
            yield row(f"{data}: two-tower index, {NEW_PRODUCTS:,} new products", spent, "s", 60.0)
    yield row(f"{data}: CPU of the training", summary["fit"]["cpu_seconds"], "s", FIT_CPU_S)


def unavailable_share(data: Path, version: Path) -> float:
    """Return the share of what is served now that is not available, for histories of 20 events."""
    import numpy as np
    import polars as pl

    from components.index_builder.loaded_model import LoadedModel

    catalogue = pl.read_csv(data / "items.csv.gz")
    if "delisted_at" in catalogue.columns:
        catalogue = catalogue.filter(pl.col("delisted_at").is_null())
    available = {item.encode() for item in catalogue["item_id"]}
    events = pl.read_csv(data / "interactions.csv.gz").sort("timestamp")
    newest = events.group_by("user_id", maintain_order=True).agg(pl.col("item_id").tail(20))
    model, served = LoadedModel(str(version)), []
    for part in newest.iter_slices(256):
        histories = [items + [""] * (20 - len(items)) for items in part["item_id"].to_list()]
        queries = {"user_id": part["user_id"].to_list(), "history": histories}
        served += model.answer("serving_default", queries)["candidate_ids"].ravel().tolist()
    return float(np.mean([item not in available for item in served if item]))


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("folder", nargs="?", default="data", help="folder of the data sets")
    parser.add_argument(
        "--only", nargs="*", choices=[*SETTINGS, *GENERATED], help="only these data sets"
    )
    parser.add_argument("--set", nargs="*", default=[], help="further settings of the runs")
    run(parser, rows, "tensorflow", "tfx", "numpy")
