"""Compare CPU time and memory of TimelineExampleGen and TFX's CsvExampleGen on the same ratings.

Each measurement runs in a new process. CPU time covers all threads during the executor's call;
imports are listed separately. Memory is the peak resident size, less that of the imports.

Usage: python benchmarks/example_gen.py [--json] [--skip-stock]
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks._report import environment, in_child, options_parser, report, row  # noqa: E402

NUM_USERS = 6_000
NUM_ITEMS = 4_000
BEAM_ARGS = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1"]


def write_ratings(path: Path, count: int) -> None:
    """Write random ratings: uniform users, items by Zipf's law, over three years."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    rng = np.random.default_rng(42)
    weights = 1 / np.arange(1, NUM_ITEMS + 1)
    table = {
        "user_id": rng.integers(1, NUM_USERS + 1, count),
        "movie_id": rng.choice(NUM_ITEMS, count, p=weights / weights.sum()) + 1,
        "rating": rng.integers(1, 6, count),
        "timestamp": rng.integers(956_703_932, 1_046_454_590, count),
    }
    pa_csv.write_csv(pa.table(table), path)


def write_examples(csv: Path, path: Path) -> None:
    """Write the ratings of a CSV file as a TFRecord of `tf.train.Example`, with ids as bytes."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    from components.interactions.sources.tfrecord import frame

    types = {
        "user_id": pa.binary(),
        "movie_id": pa.binary(),
        "rating": pa.float32(),
        "timestamp": pa.int64(),
    }
    table = pa_csv.read_csv(csv, convert_options=pa_csv.ConvertOptions(column_types=types))
    encoder = RecordBatchToExamplesEncoder()
    with path.open("wb") as stream:
        for batch in table.to_batches(100_000):
            bounds = pa.array(np.arange(len(batch) + 1, dtype=np.int32))
            lists = [pa.ListArray.from_arrays(bounds, column) for column in batch.columns]
            named = pa.RecordBatch.from_arrays(lists, batch.schema.names)
            stream.write(b"".join(map(frame, encoder.encode(named))))


def prepare_stock(csv: Path, out: Path) -> Any:
    from tfx.components.example_gen.csv_example_gen import executor
    from tfx.dsl.components.base import base_beam_executor
    from tfx.proto import example_gen_pb2
    from tfx.types import standard_artifacts
    from tfx.utils import proto_utils

    examples = standard_artifacts.Examples()
    examples.uri = str(out)
    splits = [("train", 9), ("eval", 1)]
    properties = {
        "input_base": str(csv.parent),
        "input_config": proto_utils.proto_to_json(
            example_gen_pb2.Input(
                splits=[example_gen_pb2.Input.Split(name="all", pattern=csv.name)]
            )
        ),
        "output_config": proto_utils.proto_to_json(
            example_gen_pb2.Output(
                split_config=example_gen_pb2.SplitConfig(
                    splits=[
                        example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=buckets)
                        for name, buckets in splits
                    ]
                )
            )
        ),
        "output_data_format": example_gen_pb2.FORMAT_TF_EXAMPLE,
        "output_file_format": example_gen_pb2.FORMAT_TFRECORDS_GZIP,
    }
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=list(BEAM_ARGS), tmp_dir=str(out), unique_id="1"
    )
    return lambda: executor.Executor(context).Do({}, {"examples": [examples]}, properties)


def prepare_timeline(csv: Path, out: Path) -> Any:
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import standard_artifacts

    from components.artifacts import IngestReport, RejectedRows
    from components.interactions.config import DataConfig, IngestConfig, SplitConfig
    from components.timeline_example_gen.component import TimelineExampleGen
    from models.features.spec import ColumnsConfig, FeaturesConfig, FeatureSpec

    config = IngestConfig(
        data=DataConfig(interactions=str(csv)),
        split=SplitConfig(method="temporal", eval_fraction=0.1),
        spec=FeatureSpec(
            columns=ColumnsConfig(
                query_id="user_id", candidate_id="movie_id", timestamp="timestamp", rating="rating"
            ),
            features=FeaturesConfig(),
        ),
    )
    component = TimelineExampleGen(config=config.model_dump_json())
    outputs: dict[str, list[Any]] = {
        "examples": [standard_artifacts.Examples()],
        "rejected": [RejectedRows()],
        "report": [IngestReport()],
    }
    for key, (artifact,) in outputs.items():
        artifact.uri = str(out / key)
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=list(BEAM_ARGS), tmp_dir=str(out), unique_id="1"
    )
    executor = component.executor_spec.executor_class(context)
    return lambda: executor.Do({}, outputs, dict(component.exec_properties))


def measure(which: str, csv: Path, out: Path) -> None:
    """Run one executor in this process and print its times and memory as JSON."""
    run = (prepare_stock if which == "stock" else prepare_timeline)(csv, out)
    import_cpu_s = time.process_time()
    base_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    run()
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "cpu_s": time.process_time() - import_cpu_s,
                "wall_s": time.monotonic() - started,
                "import_cpu_s": import_cpu_s,
                "growth_mb": (peak_kb - base_kb) / 1024,
                "peak_mb": peak_kb / 1024,
            }
        )
    )


def measured(which: str, csv: Path, folder: Path) -> dict[str, float]:
    return in_child(__file__, which, csv, folder / f"{which}-{csv.stem}")


def rows(folder: Path, *, skip_stock: bool) -> list[dict[str, Any]]:
    paths = {}
    for label, count in (("1m", 1_000_000), ("4m", 4_000_000)):
        paths[label] = folder / label / f"{label}.csv"
        paths[label].parent.mkdir()
        write_ratings(paths[label], count)
    examples = folder / "1m_examples.tfrecord"
    write_examples(paths["1m"], examples)
    small = measured("timeline", paths["1m"], folder)
    of_examples = measured("timeline", examples, folder)
    large = measured("timeline", paths["4m"], folder)
    found = [
        row("timeline_cpu_1m", small["cpu_s"], "s"),
        row("timeline_wall_1m", small["wall_s"], "s"),
        row("timeline_import_cpu", small["import_cpu_s"], "s"),
        row("timeline_cpu_4m", large["cpu_s"], "s"),
        row("timeline_tfrecord_cpu_1m", of_examples["cpu_s"], "s"),
        row("tfrecord_cpu_over_csv", of_examples["cpu_s"] / small["cpu_s"], "ratio"),
        row("tfrecord_memory_growth_1m", of_examples["growth_mb"], "MB"),
        row("timeline_memory_growth_1m", small["growth_mb"], "MB"),
        row("timeline_memory_growth_4m", large["growth_mb"], "MB"),
        row("memory_growth_4m_over_1m", large["growth_mb"] / small["growth_mb"], "ratio", 2.0, 1.5),
    ]
    if not skip_stock:
        stock = measured("stock", paths["1m"], folder)
        found += [
            row("stock_cpu_1m", stock["cpu_s"], "s"),
            row("stock_wall_1m", stock["wall_s"], "s"),
            row("stock_import_cpu", stock["import_cpu_s"], "s"),
            row("stock_memory_growth_1m", stock["growth_mb"], "MB"),
            row("timeline_cpu_over_stock", small["cpu_s"] / stock["cpu_s"], "ratio", 0.05, 0.025),
        ]
    return found


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--skip-stock", action="store_true", help="leave out CsvExampleGen")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        which, csv, out = options.measure
        measure(which, Path(csv), Path(out))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = rows(Path(folder), skip_stock=options.skip_stock)
    about = environment("tfx", "apache-beam", "tensorflow", "pyarrow", "numpy")
    return report(about, found, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
