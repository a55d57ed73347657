"""Measure the cost of each component by log size, of TFX's own components, and of one small step.

The input is a synthetic log (`_growth_log.py`, fixed seed) of 100,000 and a million events, and of
ten million with `--full`. It has one item per 20 events. The configuration is the one that
`two-tower init` drafts. Each component runs in a new process, as orchestrators start it with
`two-tower component`. CPU time includes all threads and child processes of a component, but not its
imports. Memory is the peak resident size of all its processes together, including imports.

Usage: python benchmarks/growth.py [--json] [--full] [--folder DIR] [--only PART]
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402

from benchmarks._growth_log import GrowthLog, write_log  # noqa: E402
from benchmarks._growth_stages import Stage, measure, run_stages  # noqa: E402
from benchmarks._report import environment, options_parser, report, row  # noqa: E402
from tests.pipeline.orchestrators.kubeflow.compiled_steps import (  # noqa: E402
    CompiledPipeline,
    compile_for_folder,
)

SIZES = {"100k": 100_000, "1m": 1_000_000, "10m": 10_000_000}
DATA_STAGES = ("TimelineExampleGen", "StatisticsGen", "Transform")
STAGES = (
    "ImportSchemaGen",
    "TimelineExampleGen",
    "StatisticsGen",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "LastBlessedModel",
    "RetrievalEvaluator",
    "CandidateEmbedder",
    "IndexBuilder",
    "ServingValidator",
    "Pusher",
)
STOCK_STAGES = ("CsvExampleGen", "StatisticsGen", "SchemaGen", "Transform")
# The gate accepts any model, so that the stages after the evaluation are measured in any case.
PASS_THE_GATE = ("evaluation.min_lift=0",)
# The ratios of shorter stages are not meaningful.
LEAST_CPU_S = 2.0
PARTS = ("stock", "pipeline", "step")
STEPS = 3
TWO_TOWER = (sys.executable, "-W", "ignore", "-c", "from pipeline.cli.main import main; main()")


def prepare(folder: Path, num_events: int) -> Path:
    """Write the log and draft a configuration for it, unless they exist; return its path."""
    config = folder / "growth.yaml"
    if config.exists():
        return config
    log: GrowthLog = write_log(folder / "log", num_events)
    command = [*TWO_TOWER, "init"]
    command += ["--interactions", str(log.events), "--candidates", str(log.catalogue)]
    command += ["--query-id", "user_id", "--candidate-id", "item_id", "--timestamp", "timestamp"]
    subprocess.run([*command, "--output", str(config)], check=True, cwd=ROOT, capture_output=True)
    return config


def stages_of(folder: Path, names: Sequence[str], num_events: int) -> dict[str, Stage]:
    config = prepare(folder, num_events)
    return run_stages(folder / "stages", names, str(config), PASS_THE_GATE)


def stock_stages(folder: Path, events: Path) -> dict[str, Stage]:
    """Run TFX's own components on a copy of the CSV file in a separate folder."""
    stock = folder / "stock"
    (stock / "csv").mkdir(parents=True, exist_ok=True)
    alone = stock / "csv" / events.name
    if not alone.exists():
        shutil.copyfile(events, alone)
    return run_stages(stock / "stages", STOCK_STAGES, f"stock:{stock}:{alone}")


def stock_rows(folder: Path) -> Iterator[dict[str, Any]]:
    ours = stages_of(folder, STAGES[:5], SIZES["1m"])
    stock = stock_stages(folder, folder / "log" / "events.csv")
    for name in DATA_STAGES:
        yield row(f"{name}_cpu", ours[name]["cpu_s"], "s")
    for name in STOCK_STAGES:
        yield row(f"stock_{name}_cpu", stock[name]["cpu_s"], "s")
    mine = sum(ours[name]["cpu_s"] for name in DATA_STAGES)
    theirs = sum(stock[name]["cpu_s"] for name in STOCK_STAGES if name != "SchemaGen")
    yield row("data_cpu_1m", mine, "s")
    yield row("stock_cpu_1m", theirs, "s")
    yield row("data_cpu_over_stock", mine / theirs, "ratio", 0.1, 0.05)


def pipeline_rows(folders: dict[str, Path]) -> Iterator[dict[str, Any]]:
    found = {label: stages_of(folder, STAGES, SIZES[label]) for label, folder in folders.items()}
    for label, stages in found.items():
        for name, stage in stages.items():
            yield row(f"{name}_cpu_{label}", stage["cpu_s"], "s")
            yield row(f"{name}_wall_{label}", stage["process_wall_s"], "s")
            yield row(f"{name}_peak_{label}", stage["peak_mb"], "MB")
            yield row(f"{name}_peak_above_imports_{label}", _above_imports_mb(stage), "MB")
        yield from _model_rows(folders[label], label)
        cpu_s = sum(stage["cpu_s"] + stage["import_cpu_s"] for stage in stages.values())
        minutes = sum(stage["process_wall_s"] for stage in stages.values()) / 60
        peak_gib = max(stage["peak_mb"] for stage in stages.values()) / 1024
        large = label == "10m"
        yield row(f"pipeline_cpu_{label}", cpu_s / 60, "min")
        yield row(f"pipeline_wall_{label}", minutes, "min", *((90.0, 45.0) if large else ()))
        yield row(f"pipeline_peak_{label}", peak_gib, "GiB", *((16.0,) if large else ()))
    if "10m" not in found:
        return
    small, grown = found["1m"], found["10m"]
    for name in STAGES:
        if grown[name]["cpu_s"] >= LEAST_CPU_S:
            ratio = grown[name]["cpu_s"] / small[name]["cpu_s"]
            yield row(f"{name}_cpu_10m_over_1m", ratio, "ratio", 11.0, 10.0)
    for name in DATA_STAGES:
        ratio = grown[name]["peak_mb"] / small[name]["peak_mb"]
        yield row(f"{name}_peak_10m_over_1m", ratio, "ratio", 2.0, 1.2)
        above = _above_imports_mb(grown[name]) / _above_imports_mb(small[name])
        yield row(f"{name}_peak_above_imports_10m_over_1m", above, "ratio")


def _above_imports_mb(stage: Stage) -> float:
    return float(stage["peak_mb"] - stage["import_mb"])


def _model_rows(folder: Path, label: str) -> Iterator[dict[str, Any]]:
    """Yield the numbers of epochs and queries, which the times depend on, and the hit rates."""
    settings = yaml.safe_load((folder / "growth.yaml").read_text())
    yield row(f"epochs_{label}", settings["training"]["epochs"], "epochs")
    (report_file,) = (folder / "runs").glob("*/artifacts/RetrievalEvaluator/evaluation/*/*.json")
    evaluation = json.loads(report_file.read_text())
    yield row(f"queries_{label}", evaluation["num_evaluation_queries"], "queries")
    for name, metrics in evaluation["metrics"].items():
        yield row(f"hit_rate@10_of_{name}_{label}", metrics["hit_rate@10"], "share")


def step_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Time one small component, started as Airflow and as Kubeflow Pipelines start it."""
    config = prepare(folder, SIZES["100k"])
    command = [*TWO_TOWER, "component", "ImportSchemaGen", "--config", str(config), "--run-id"]
    walls, cpus = [], []
    for number in range(STEPS + 1):  # the first run fills the file cache and is not counted
        measured = measure([*command, f"step-{number}"], folder / "step.log")
        walls.append(measured["process_wall_s"])
        cpus.append(measured["process_cpu_s"])
    yield row("airflow_step_wall", statistics.median(walls[1:]), "s", 8.0, 4.0)
    yield row("airflow_step_cpu", statistics.median(cpus[1:]), "s")
    spec = compile_for_folder(
        config, folder / "root", f"schema.file={folder / 'schema' / 'growth' / 'schema.pbtxt'}"
    )
    walls = []
    for number in range(STEPS):
        steps = CompiledPipeline(
            spec,
            folder / "root" / f"run-{number}",
            {"data_directory": str(folder)},
        )
        steps.run(only=["ImportSchemaGen"])
        walls.append(steps.seconds["ImportSchemaGen"])
    yield row("kubeflow_step_wall", statistics.median(walls), "s", 8.0, 4.0)


def rows(folder: Path, parts: Sequence[str], *, full: bool) -> Iterator[dict[str, Any]]:
    folders = {label: folder / label for label in SIZES if full or label != "10m"}
    if "step" in parts:
        yield from step_rows(folder / "step")
    if "stock" in parts:
        yield from stock_rows(folders["1m"])
    if "pipeline" in parts:
        yield from pipeline_rows(folders)


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--full", action="store_true", help="add ten million events (43 min)")
    parser.add_argument("--only", choices=PARTS, help="measure only this part")
    parser.add_argument(
        "--folder", type=Path, help="keep the results there, and do not repeat earlier measurements"
    )
    options = parser.parse_args()
    parts = [options.only] if options.only else PARTS
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        found = list(rows(folder, parts, full=options.full))
    about = environment("tfx", "apache-beam", "tensorflow", "scann", "pyarrow", "polars")
    return report(about, found, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
