"""Measure the batch recommender: users per second, and memory that does not grow with the users.

The data has the size of MovieLens-1M: 3,706 items, and histories with the quartiles of its users
(44, 96 and 208 events, at most 2,314). The model has 64 dimensions, an exact index with `k` 100 and
towers that take almost no time. The answers exclude the history, and k is 20. Each measurement runs
in a new process, with the default Beam runner and loading of the model included. Memory is the peak
of the anonymous resident size minus its size after the imports. For ten million users, time is
extrapolated linearly from the two sizes; memory is that of one bucket of users for any number.

Usage: python benchmarks/batch.py [--json] [--small 10000] [--large 100000]
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks._processes import measure_call
from benchmarks._report import Row, options_parser, row, run
from benchmarks._serving_model import CANDIDATE_ID, QUERY_ID

NUM_ITEMS = 3706
K, INDEX_K = 20, 100
TEN_MILLION = 10_000_000
# Ingestion writes a file for about this many bytes of events in CSV, of about 20 bytes each.
EVENTS_PER_FILE = (32 << 20) // 20


def spec() -> Any:
    from models.features.spec import ColumnsConfig, FeatureSpec

    return FeatureSpec(columns=ColumnsConfig(query_id=QUERY_ID, candidate_id=CANDIDATE_ID))


def write_examples(folder: Path, num_users: int) -> None:
    """Write the splits `train` and `eval`; one event of each user is held out."""
    import pyarrow as pa

    from components.interactions.timelines.examples import record_batch, single_lists
    from components.interactions.timelines.examples import write_examples as write_file

    rng = np.random.default_rng(42)
    lengths = np.clip(np.exp(rng.normal(np.log(96), 1.12, num_users)), 20, 2314).astype(np.int64)
    names = pa.array([f"item_{item}".encode() for item in range(NUM_ITEMS)])
    popularity = np.cumsum(1 / np.arange(1, NUM_ITEMS + 1) ** 0.8)
    file_of_user = (np.cumsum(lengths) - 1) // EVENTS_PER_FILE
    for split in ("train", "eval"):
        (folder / f"Split-{split}").mkdir(parents=True)

    def batches(first: int, last: int, *, held_out: bool) -> Iterator[Any]:
        for start in range(first, last, 1000):
            size = lengths[start : min(start + 1000, last)] - (0 if held_out else 1)
            offsets = np.concatenate(([0], np.cumsum(size))).astype(np.int32)
            drawn = rng.random(offsets[-1]) * popularity[-1]
            items = names.take(pa.array(np.searchsorted(popularity, drawn)))
            is_target = np.zeros(offsets[-1], np.int64)
            if held_out:
                is_target[offsets[1:] - 1] = 1
            ids = pa.array([f"u{user}".encode() for user in range(start, start + len(size))])
            yield record_batch(
                {
                    QUERY_ID: single_lists(ids),
                    CANDIDATE_ID: pa.ListArray.from_arrays(pa.array(offsets), items),
                    "is_target": pa.ListArray.from_arrays(pa.array(offsets), pa.array(is_target)),
                }
            )

    for number in range(int(file_of_user[-1]) + 1):
        first, last = np.searchsorted(file_of_user, [number, number + 1])
        for split in ("train", "eval"):
            path = folder / f"Split-{split}" / f"data-{number:05d}.gz"
            write_file(str(path), batches(first, last, held_out=split == "eval"))


def prepare_examples(folder: str, num_users: str) -> Callable[[], None]:
    return lambda: write_examples(Path(folder), int(num_users))


def prepare_batch(model: str, examples: str, output: str) -> Callable[[], dict[str, Any]]:
    import apache_beam as beam

    from components.batch_recommender.answers import Request
    from components.batch_recommender.recommend import recommend_to_files

    request = Request(spec=spec(), k=K, index_k=INDEX_K)
    splits = ("train", "eval")
    return lambda: recommend_to_files(model, examples, splits, request, output, beam.Pipeline)


def rows(options: Any, scratch: Path) -> Iterator[Row]:
    here = "benchmarks.batch"
    model = f"{scratch}/model"
    exporting = (model, str(NUM_ITEMS), "exact")
    measure_call("benchmarks._serving_model:prepare_export", *exporting, log=scratch / "export.log")
    measured = {}
    for number in (options.small, options.large):
        examples = f"{scratch}/examples_{number}"
        log = scratch / f"{number}.log"
        measure_call(f"{here}:prepare_examples", examples, str(number), log=log)
        output = f"{scratch}/output_{number}"
        found = measure_call(f"{here}:prepare_batch", model, examples, output, log=log)
        if found["returned"]["num_rows"] != K * number:
            sys.exit(f"{number} users must have {K} rows each: {found['returned']}")
        measured[number] = found
        per_s = number / found["wall_s"]
        yield row(f"users_{number}", per_s, "users/s", 4000, 12_000, larger_is_better=True)
        # The CPU time of all threads, which does not depend on other processes of the machine.
        yield row(f"cpu_{number}", 1e6 * found["cpu_s"] / number, "µs/user")
        yield row(f"memory_{number}", found["growth_mb"], "MB")
    small, large = (measured[number] for number in (options.small, options.large))
    growth = large["growth_mb"] / small["growth_mb"]
    yield row("memory_large_over_small", growth, "ratio", 1.5, 1.2)
    per_user_s = (large["wall_s"] - small["wall_s"]) / (options.large - options.small)
    yield row("ten_million_users", per_user_s * TEN_MILLION / 60, "min")


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000)
    run(parser, rows, "tensorflow", "apache-beam", "pyarrow")
