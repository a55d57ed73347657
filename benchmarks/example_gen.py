"""Compare CPU time and memory of TimelineExampleGen and TFX's CsvExampleGen on the same ratings.

Each component runs in a new process. CPU time includes all threads and child processes of the
component, but not its imports, which are listed separately. Memory is the peak resident size minus
that after the imports.

Usage: python benchmarks/example_gen.py [--json] [--skip-stock]
"""

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks._growth_stages import Stage, run_stages  # noqa: E402
from benchmarks._report import Row, environment, options_parser, report, row  # noqa: E402

NUM_USERS = 6_000
NUM_ITEMS = 4_000
SIZES = {"1m": 1_000_000, "4m": 4_000_000}


def write_ratings(path: Path, count: int) -> None:
    """Write random ratings over three years; item frequencies follow Zipf's law."""
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
    """Convert a CSV file of ratings to a TFRecord file of `tf.train.Example`, with ids as bytes."""
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


def run(folder: Path, interactions: Path) -> Stage:
    """Run TimelineExampleGen of a minimal project on a file of ratings."""
    folder.mkdir()
    config = folder / "ratings.yaml"
    events = {
        "files": str(interactions),
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
    name = "TimelineExampleGen"
    return run_stages(folder / "stages", [name], str(config))[name]


def run_stock(folder: Path, csv: Path) -> Stage:
    """Run CsvExampleGen on `csv`, which must be the only file in its folder."""
    name = "CsvExampleGen"
    return run_stages(folder / "stages", [name], f"stock:{folder}:{csv}")[name]


def growth_mb(stage: Stage) -> float:
    return float(stage["peak_mb"] - stage["import_mb"])


def rows(folder: Path, *, skip_stock: bool) -> list[Row]:
    paths = {}
    for label, count in SIZES.items():
        paths[label] = folder / label / f"{label}.csv"
        paths[label].parent.mkdir()
        write_ratings(paths[label], count)
    examples = folder / "1m_examples.tfrecord"
    write_examples(paths["1m"], examples)
    small = run(folder / "small", paths["1m"])
    from_tfrecord = run(folder / "tfrecord", examples)
    large = run(folder / "large", paths["4m"])
    found = [
        row("timeline_cpu_1m", small["cpu_s"], "s"),
        row("timeline_wall_1m", small["wall_s"], "s"),
        row("timeline_import_cpu", small["import_cpu_s"], "s"),
        row("timeline_cpu_4m", large["cpu_s"], "s"),
        row("timeline_tfrecord_cpu_1m", from_tfrecord["cpu_s"], "s"),
        row("tfrecord_cpu_over_csv", from_tfrecord["cpu_s"] / small["cpu_s"], "ratio"),
        row("tfrecord_memory_growth_1m", growth_mb(from_tfrecord), "MB"),
        row("timeline_memory_growth_1m", growth_mb(small), "MB"),
        row("timeline_memory_growth_4m", growth_mb(large), "MB"),
        row("memory_growth_4m_over_1m", growth_mb(large) / growth_mb(small), "ratio", 2.0, 1.5),
    ]
    if not skip_stock:
        stock = run_stock(folder / "stock", paths["1m"])
        found += [
            row("stock_cpu_1m", stock["cpu_s"], "s"),
            row("stock_wall_1m", stock["wall_s"], "s"),
            row("stock_import_cpu", stock["import_cpu_s"], "s"),
            row("stock_memory_growth_1m", growth_mb(stock), "MB"),
            row("timeline_cpu_over_stock", small["cpu_s"] / stock["cpu_s"], "ratio", 0.05, 0.025),
        ]
    return found


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--skip-stock", action="store_true", help="leave out CsvExampleGen")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = rows(Path(folder), skip_stock=options.skip_stock)
    about = environment("tfx", "apache-beam", "tensorflow", "pyarrow", "numpy")
    return report(about, found, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
