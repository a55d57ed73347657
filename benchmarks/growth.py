"""What each stage costs as a log grows, beside TFX's own chain; and an empty step.

A synthetic log (`_growth_log.py`, a fixed seed) of a million events with an item for each twenty,
and with `--full` also of ten million, goes through the pipeline as `two-tower init` drafts it. Each
component runs in a process of its own, as `two-tower component` does for an orchestrator. CPU
seconds are of all threads, and of processes that a component starts, from its beginning to its end;
what the imports took is left out of ratios. Memory is the most that all its processes hold together
(resident), imports included.

Usage: python benchmarks/growth.py [--json] [--full] [--folder DIR] [--only PART]
"""

import argparse
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

from benchmarks._growth_log import GrowthLog, write_log  # noqa: E402
from benchmarks._growth_stages import Stage, measure, run_stages  # noqa: E402
from benchmarks._report import environment, report, row  # noqa: E402

SIZES = {"1m": 1_000_000, "10m": 10_000_000}
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
# What follows the evaluation is measured whether the model is good or not.
PASS_THE_GATE = ("evaluation.min_lift=0",)
# What takes less says nothing by a ratio.
LEAST_CPU_S = 2.0
PARTS = ("stock", "pipeline", "step")
STEPS = 3


def prepare(folder: Path, num_events: int) -> Path:
    """Writes the log and drafts its configuration; what is there already is left as it is."""
    config = folder / "growth.yaml"
    if config.exists():
        return config
    log: GrowthLog = write_log(folder / "log", num_events)
    command = [sys.executable, "-W", "ignore", "-c", "from pipeline.cli.main import main; main()"]
    command += ["init", "--interactions", str(log.events), "--candidates", str(log.catalogue)]
    command += ["--query-id", "user_id", "--candidate-id", "item_id", "--timestamp", "timestamp"]
    subprocess.run([*command, "--output", str(config)], check=True, cwd=ROOT, capture_output=True)
    return config


def stages_of(folder: Path, names: Sequence[str], num_events: int) -> dict[str, Stage]:
    config = prepare(folder, num_events)
    return run_stages(folder / "stages", names, str(config), PASS_THE_GATE)


def stock_stages(folder: Path, events: Path) -> dict[str, Stage]:
    """Runs TFX's own chain; its CSV must be alone in a folder."""
    place = folder / "stock"
    (place / "csv").mkdir(parents=True, exist_ok=True)
    alone = place / "csv" / events.name
    if not alone.exists():
        shutil.copyfile(events, alone)
    return run_stages(place / "stages", STOCK_STAGES, f"stock:{place}:{alone}")


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
        cpu_s = sum(stage["cpu_s"] + stage["import_cpu_s"] for stage in stages.values())
        minutes = sum(stage["process_wall_s"] for stage in stages.values()) / 60
        peak_gib = max(stage["peak_mb"] for stage in stages.values()) / 1024
        large = label == "10m"
        yield row(f"pipeline_cpu_{label}", cpu_s / 60, "min")
        yield row(f"pipeline_wall_{label}", minutes, "min", *((90.0, 45.0) if large else ()))
        yield row(f"pipeline_peak_{label}", peak_gib, "GiB", *((16.0,) if large else ()))
    if len(found) < len(SIZES):
        return
    small, grown = found.values()
    for name in STAGES:
        if grown[name]["cpu_s"] >= LEAST_CPU_S:
            ratio = grown[name]["cpu_s"] / small[name]["cpu_s"]
            yield row(f"{name}_cpu_10m_over_1m", ratio, "ratio", 11.0, 10.0)
    for name in DATA_STAGES:
        ratio = grown[name]["peak_mb"] / small[name]["peak_mb"]
        yield row(f"{name}_peak_10m_over_1m", ratio, "ratio", 2.0, 1.2)


def step_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """A step that reads a small file: `two-tower component`, again and again in new runs."""
    config = prepare(folder, 100_000)
    command = [sys.executable, "-W", "ignore", "-c", "from pipeline.cli.main import main; main()"]
    command += ["component", "ImportSchemaGen", "--config", str(config), "--run-id"]
    walls, cpus = [], []
    for number in range(STEPS + 1):  # the first reads files from the disk
        measured = measure([*command, f"step-{number}"], folder / "step.log")
        walls.append(measured["process_wall_s"])
        cpus.append(measured["process_cpu_s"])
    yield row("step_wall", statistics.median(walls[1:]), "s", 8.0, 4.0)
    yield row("step_cpu", statistics.median(cpus[1:]), "s")


def rows(folder: Path, parts: Sequence[str], *, full: bool) -> Iterator[dict[str, Any]]:
    places = {label: folder / label for label in (SIZES if full else ("1m",))}
    if "step" in parts:
        yield from step_rows(folder / "step")
    if "stock" in parts:
        yield from stock_rows(places["1m"])
    if "pipeline" in parts:
        yield from pipeline_rows(places)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--full", action="store_true", help="also ten million events: an hour")
    parser.add_argument("--only", choices=PARTS, help="one part of it")
    parser.add_argument(
        "--folder", type=Path, help="keep what is made there, and do not repeat what is measured"
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
