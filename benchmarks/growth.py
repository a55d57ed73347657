"""Measure the cost of each component by log size, of TFX's own components, and of one small step.

The input is a synthetic log (`_growth_log.py`) of 100,000 and a million events, and of ten million
with `--full`, with one item per 20 events. The configuration is drafted by `two-tower init`. Each
component runs in a new process, as orchestrators start it. CPU time includes all threads and child
processes, but not imports. Memory is the peak resident size of all processes, including imports.

Usage: python benchmarks/growth.py [--json] [--full] [--only PART] [--set SETTING=VALUE ...]
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml

from benchmarks._growth_log import write_log
from benchmarks._processes import ROOT, TWO_TOWER, Measured, measure, measure_components
from benchmarks._report import Row, options_parser, row, run

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
PASS_THE_GATE = "evaluation.min_lift=0"
# The ratios of shorter stages are not meaningful.
LEAST_CPU_S = 2.0
PARTS = ("step", "stock", "pipeline")
STEPS = 3
COMMAND = (sys.executable, "-W", "ignore", "-c", TWO_TOWER)


class Log:
    """A synthetic log, its project, and the measurements of the project's components."""

    def __init__(self, folder: Path, num_events: int, settings: Sequence[str] = ()) -> None:
        self.folder = folder
        self.settings = (PASS_THE_GATE, *settings)
        self.events, catalogue = write_log(folder / "log", num_events)
        self.config = folder / "growth.yaml"
        inputs = {
            "--interactions": self.events,
            "--candidates": catalogue,
            "--query-id": "user_id",
            "--candidate-id": "item_id",
            "--timestamp": "timestamp",
            "--output": self.config,
        }
        words = [str(word) for option in inputs.items() for word in option]
        subprocess.run([*COMMAND, "init", *words], check=True, cwd=ROOT, capture_output=True)
        self._measured: dict[str, Measured] = {}

    def stages(self, names: tuple[str, ...] = STAGES) -> dict[str, Measured]:
        """Measure the components that were not measured before; return those in `names`."""
        new = [name for name in names if name not in self._measured]
        self._measured |= measure_components(
            self.folder / "stages", new, self.config, *self.settings
        )
        return {name: self._measured[name] for name in names}


def stock_component(name: str, csv: str) -> Callable[[], None]:
    """Return a function that runs a component of TFX's own chain for a CSV file of events.

    The CSV file must be the only file in its folder.
    """
    from tfx.components.example_gen.csv_example_gen.component import CsvExampleGen
    from tfx.components.schema_gen.component import SchemaGen
    from tfx.components.statistics_gen.component import StatisticsGen
    from tfx.components.transform.component import Transform
    from tfx.orchestration import metadata
    from tfx.orchestration.pipeline import Pipeline

    from pipeline.orchestrators.local.runner import run_component

    inputs = Path(csv).parent
    example_gen = CsvExampleGen(input_base=str(inputs))
    examples = example_gen.outputs["examples"]
    statistics_gen = StatisticsGen(examples=examples)
    schema_gen = SchemaGen(statistics=statistics_gen.outputs["statistics"])
    transform = Transform(
        examples=examples,
        schema=schema_gen.outputs["schema"],
        preprocessing_fn="benchmarks.growth.preprocessing_fn",
        disable_statistics=True,
        disable_analyzer_cache=True,  # this project's pipeline does not write a cache either
    )
    root = inputs.parent / "stock"
    root.mkdir(exist_ok=True)
    pipeline = Pipeline(
        pipeline_name="stock",
        pipeline_root=str(root / "artifacts"),
        components=[example_gen, statistics_gen, schema_gen, transform],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(
            str(root / "metadata.sqlite")
        ),
        beam_pipeline_args=["--runner=DirectRunner", "--direct_running_mode=in_memory"],
    )

    def run() -> None:
        run_component(pipeline, name, "growth")

    return run


def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, Any]:
    """Map the item IDs to indices and pass the other columns through.

    A two-tower model needs at least this.
    """
    import tensorflow as tf
    import tensorflow_transform as tft

    def dense(values: Any) -> Any:
        if isinstance(values, tf.SparseTensor):
            return tf.sparse.to_dense(values, "" if values.dtype == tf.string else 0)
        return values

    outputs = {name: dense(values) for name, values in inputs.items()}
    outputs["item_id"] = tft.compute_and_apply_vocabulary(outputs["item_id"])
    return outputs


def stock_rows(log: Log) -> Iterator[Row]:
    ours = log.stages(STAGES[:5])
    stock = measure_components(log.folder / "stock_stages", STOCK_STAGES, log.events)
    for name in DATA_STAGES:
        yield row(f"{name}_cpu", ours[name]["cpu_s"], "s")
    for name in STOCK_STAGES:
        yield row(f"stock_{name}_cpu", stock[name]["cpu_s"], "s")
    mine = sum(ours[name]["cpu_s"] for name in DATA_STAGES)
    theirs = sum(stock[name]["cpu_s"] for name in STOCK_STAGES if name != "SchemaGen")
    yield row("data_cpu_1m", mine, "s")
    yield row("stock_cpu_1m", theirs, "s")
    yield row("data_cpu_over_stock", mine / theirs, "ratio", 0.1, 0.05)


def pipeline_rows(logs: dict[str, Log]) -> Iterator[Row]:
    found = {label: log.stages() for label, log in logs.items()}
    for label, stages in found.items():
        for name, stage in stages.items():
            yield row(f"{name}_cpu_{label}", stage["cpu_s"], "s")
            yield row(f"{name}_wall_{label}", stage["process_wall_s"], "s")
            yield row(f"{name}_peak_{label}", stage["peak_mb"], "MB")
            yield row(f"{name}_peak_above_imports_{label}", stage["above_imports_mb"], "MB")
        yield from _model_rows(logs[label], label)
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
        above = grown[name]["above_imports_mb"] / small[name]["above_imports_mb"]
        yield row(f"{name}_peak_above_imports_10m_over_1m", above, "ratio")


def _model_rows(log: Log, label: str) -> Iterator[Row]:
    """Yield the numbers of epochs and queries, which the times depend on, and the hit rates."""
    settings = yaml.safe_load(log.config.read_text())
    yield row(f"epochs_{label}", settings["training"]["epochs"], "epochs")
    for ranker in (log.folder / "runs").glob("*/artifacts/Trainer/model_run/*/ranking.json"):
        ranking_s = json.loads(ranker.read_text())["cpu_seconds"]
        yield row(f"ranking_cpu_{label}", ranking_s, "s")  # counts, features and fit in Trainer
    reports = (log.folder / "runs").glob("*/artifacts/RetrievalEvaluator/evaluation/*/*.json")
    evaluation = json.loads(next(reports).read_text())
    yield row(f"queries_{label}", evaluation["num_evaluation_queries"], "queries")
    for name, metrics in evaluation["metrics"].items():
        yield row(f"hit_rate@10_of_{name}_{label}", metrics["hit_rate@10"], "share")


def step_rows(log: Log) -> Iterator[Row]:
    """Time one small component, started as Airflow and as Kubeflow Pipelines start it."""
    from tests.pipeline.orchestrators.kubeflow.compiled_steps import (
        CompiledPipeline,
        compile_for_folder,
    )

    command = [*COMMAND, "component", "ImportSchemaGen", "--config", str(log.config), "--run-id"]
    output = log.folder / "step.log"
    # The first run fills the file cache and is not counted.
    steps = [measure([*command, f"step-{number}"], {}, output) for number in range(STEPS + 1)][1:]
    yield row("airflow_step_wall", _median(steps, "process_wall_s"), "s", 8.0, 4.0)
    yield row("airflow_step_cpu", _median(steps, "process_cpu_s"), "s")
    schema = f"schema.file={log.folder / 'schema' / 'growth' / 'schema.pbtxt'}"
    seconds: list[float] = []
    for number in range(STEPS):
        root = log.folder / f"kubeflow-{number}"
        spec = compile_for_folder(log.config, root, schema)
        pipeline = CompiledPipeline(spec, root, {"data_directory": str(log.folder)})
        pipeline.run(only=["ImportSchemaGen"])
        seconds += pipeline.seconds.values()
    yield row("kubeflow_step_wall", statistics.median(seconds), "s", 8.0, 4.0)


def _median(steps: list[Measured], name: str) -> float:
    return float(statistics.median(step[name] for step in steps))


def rows(options: Any, folder: Path) -> Iterator[Row]:
    parts = [options.only] if options.only else PARTS
    if "step" in parts:
        yield from step_rows(Log(folder / "step", SIZES["100k"]))
    if parts == ["step"]:
        return
    labels = ["1m"] if parts == ["stock"] else [*SIZES][: 3 if options.full else 2]
    logs = {label: Log(folder / label, SIZES[label], options.set) for label in labels}
    if "stock" in parts:
        yield from stock_rows(logs["1m"])
    if "pipeline" in parts:
        yield from pipeline_rows(logs)


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("--full", action="store_true", help="add ten million events (90 min)")
    parser.add_argument("--only", choices=PARTS, help="measure only this part")
    parser.add_argument("--set", nargs="*", default=[], help="settings of the components")
    run(parser, rows, "tfx", "apache-beam", "tensorflow", "scann", "pyarrow", "polars")
