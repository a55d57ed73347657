"""Compare CPU time and memory of TimelineExampleGen and TFX's CsvExampleGen on the same ratings.

Each component runs in a new process. CPU time includes all threads and child processes of the
component, but not its imports, which are listed separately. Memory is the peak resident size minus
that after the imports.

The start of a run is measured from the start of `two-tower run` to the first Beam pipeline, with
one file of ten ratings and with 100,000 of them.

Usage: python benchmarks/example_gen.py [--json] [--skip-stock] [--only-start]
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from benchmarks._processes import TWO_TOWER, Measured, measure, measure_components
from benchmarks._report import Row, options_parser, row, run

NUM_USERS = 6_000
NUM_ITEMS = 4_000
SIZES = {"1m": 1_000_000, "4m": 4_000_000}
NUM_FILES = {"1_file": 1, "100k_files": 100_000}
UNTIL_BEAM = f"""
import os
import components.interactions.ingest as ingest
ingest.run_and_collect = lambda *_: os._exit(0)
{TWO_TOWER}
"""


def write_ratings(path: Path, count: int) -> None:
    """Write random ratings over three years; item frequencies follow Zipf's law."""
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
    """Convert a CSV file of ratings to a TFRecord file of `tf.train.Example`, with IDs as bytes."""
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


def write_config(folder: Path, interactions: str) -> Path:
    """Write a minimal project for files of ratings, and return its configuration."""
    folder.mkdir()
    config = folder / "ratings.yaml"
    events = {
        "files": interactions,
        "query_id": "user_id",
        "candidate_id": "movie_id",
        "timestamp": "timestamp",
        "rating": "rating",
    }
    split = {"method": "temporal", "eval_fraction": 0.1}
    schema = folder / "schema.pbtxt"
    schema.touch()  # must exist, but ingestion does not read it
    settings = {"events": events, "split": split, "schema": {"file": str(schema)}}
    config.write_text(json.dumps(settings), encoding="utf-8")
    return config


def ingest(folder: Path, interactions: Path) -> Measured:
    """Run TimelineExampleGen of a minimal project on a file of ratings."""
    config = write_config(folder, str(interactions))
    (found,) = measure_components(folder / "stages", ["TimelineExampleGen"], config).values()
    return found


def start_rows(folder: Path) -> Iterator[Row]:
    """Measure the start of runs with few and many files."""
    for label, count in NUM_FILES.items():
        files = folder / label
        files.mkdir()
        write_ratings(files / "0.csv", 10)
        content = (files / "0.csv").read_bytes().replace(b'"', b"")
        for number in range(count):
            (files / f"{number}.csv").write_bytes(content)
        config = write_config(folder / f"{label}_project", f"{files}/*.csv")
        settings = ["--config", str(config), "--set", f"runs={folder / label}_runs"]
        command = [sys.executable, "-c", UNTIL_BEAM, "run", *settings]
        figures = measure(command, {}, folder / f"{label}.log")
        yield row(f"start_wall_{label}", figures["process_wall_s"], "s")
        yield row(f"start_cpu_{label}", figures["process_cpu_s"], "s")


def rows(options: Any, folder: Path) -> Iterator[Row]:
    yield from start_rows(folder)
    if options.only_start:
        return
    paths = {label: folder / label / f"{label}.csv" for label in SIZES}
    for label, count in SIZES.items():
        paths[label].parent.mkdir()
        write_ratings(paths[label], count)
    examples = folder / "1m_examples.tfrecord"
    write_examples(paths["1m"], examples)
    small = ingest(folder / "small", paths["1m"])
    from_tfrecord = ingest(folder / "tfrecord", examples)
    large = ingest(folder / "large", paths["4m"])
    yield row("timeline_cpu_1m", small["cpu_s"], "s")
    yield row("timeline_wall_1m", small["wall_s"], "s")
    yield row("timeline_import_cpu", small["import_cpu_s"], "s")
    yield row("timeline_cpu_4m", large["cpu_s"], "s")
    yield row("timeline_tfrecord_cpu_1m", from_tfrecord["cpu_s"], "s")
    yield row("tfrecord_cpu_over_csv", from_tfrecord["cpu_s"] / small["cpu_s"], "ratio")
    yield row("tfrecord_memory_growth_1m", from_tfrecord["above_imports_mb"], "MB")
    yield row("timeline_memory_growth_1m", small["above_imports_mb"], "MB")
    yield row("timeline_memory_growth_4m", large["above_imports_mb"], "MB")
    ratio = large["above_imports_mb"] / small["above_imports_mb"]
    yield row("memory_growth_4m_over_1m", ratio, "ratio", 2.0, 1.5)
    if options.skip_stock:
        return
    (stock,) = measure_components(folder / "stock", ["CsvExampleGen"], paths["1m"]).values()
    yield row("stock_cpu_1m", stock["cpu_s"], "s")
    yield row("stock_wall_1m", stock["wall_s"], "s")
    yield row("stock_import_cpu", stock["import_cpu_s"], "s")
    yield row("stock_memory_growth_1m", stock["above_imports_mb"], "MB")
    yield row("timeline_cpu_over_stock", small["cpu_s"] / stock["cpu_s"], "ratio", 0.05, 0.025)


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("--skip-stock", action="store_true", help="leave out CsvExampleGen")
    parser.add_argument("--only-start", action="store_true", help="measure only the start")
    run(parser, rows, "tfx", "apache-beam", "tensorflow", "pyarrow", "numpy")
