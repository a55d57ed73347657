"""Measure memory and time of a large catalogue: embedding, indexing, and search with filters.

Candidates have an id, a price, and up to three of 1,000 genres, whose frequencies follow Zipf's
law. The towers have 64 dimensions and take almost no time, so that the cost of the pipeline itself
is measured. Each measurement runs in a new process. Memory is the peak of the anonymous resident
size minus its size after the imports. The memory for ten million candidates is extrapolated
linearly from 250,000 and 1,000,000.

Usage: python benchmarks/catalogue.py [--json]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks._report import environment, options_parser, report, row  # noqa: E402

DIMENSION = 64
SIZES = {"250k": 250_000, "1m": 1_000_000}
TEN_MILLION = 10_000_000
NUM_GENRES = 1000
NUM_QUERIES = 64
NUM_SEARCHES = 30
K = 100
CANDIDATES_A_FILE = 250_000
BEAM_ARGS = ["--runner=DirectRunner", "--direct_running_mode=in_memory"]


def spec() -> Any:
    from models.features.spec import FeatureSpec

    candidate = {
        "genres": {"kind": "categorical", "separator": "|"},
        "price": {"kind": "numeric"},
    }
    return FeatureSpec.model_validate(
        {
            "columns": {"query_id": "user", "candidate_id": "item"},
            "features": {"candidate": candidate},
        }
    )


def write_examples(folder: Path, count: int) -> None:
    """Write the split `candidates` as ingestion does, and an `eval` split with 64 queries."""
    import numpy as np
    import pyarrow as pa

    from components.interactions.timelines.examples import candidate_batches
    from components.interactions.timelines.examples import write_examples as write_file

    rng = np.random.default_rng(42)
    weights = 1 / np.arange(1, NUM_GENRES + 1)
    genres = rng.choice(NUM_GENRES, [count, 3], p=weights / weights.sum())
    (folder / "Split-candidates").mkdir(parents=True)
    for first in range(0, count, CANDIDATES_A_FILE):
        rows = range(first, min(first + CANDIDATES_A_FILE, count))
        catalogue = pa.table(
            {
                "genres": ["|".join(f"genre {g}" for g in set(genres[index])) for index in rows],
                "price": pa.array(rng.random(len(rows)), pa.float32()),
            }
        )
        ids = pa.array([f"candidate {index}" for index in rows])
        batches = candidate_batches(spec(), ids, catalogue, np.arange(len(rows)), 100_000)
        write_file(str(folder / "Split-candidates" / f"data-{first:08d}.gz"), batches)
    (folder / "Split-eval").mkdir()
    queries = pa.table(
        {
            "user": [[f"user {n}".encode()] for n in range(NUM_QUERIES)],
            "item": [[b"candidate 1", f"candidate {n}".encode()] for n in range(NUM_QUERIES)],
            "is_target": [[0, 1]] * NUM_QUERIES,
        }
    )
    write_file(str(folder / "Split-eval" / "data-0.gz"), queries.to_batches())


def write_towers(directory: Path) -> None:
    """Save towers whose embeddings are pseudo-random functions of the id."""
    import tensorflow as tf

    from models.input.raw_inputs import candidate_inputs, query_inputs, same_batch

    frequencies = tf.constant([[1.0 + 0.37 * index for index in range(DIMENSION)]])

    def vectors(ids: Any) -> Any:
        seeds = tf.cast(tf.strings.to_hash_bucket_fast(ids, 1 << 20), tf.float32)
        return {"embedding": tf.sin(seeds[:, None] * frequencies)}

    towers = tf.Module()
    functions = {
        "embed_query": (lambda **raw: vectors(same_batch(raw)["user"]), query_inputs(spec())),
        "embed_candidate": (
            lambda **raw: vectors(same_batch(raw)["item"]),
            candidate_inputs(spec()),
        ),
    }
    signatures = {
        name: tf.function(function, autograph=False).get_concrete_function(**inputs)
        for name, (function, inputs) in functions.items()
    }
    tf.saved_model.save(towers, str(directory), signatures=signatures)


class AnonymousMemory:
    """Context manager that records the peak anonymous resident size of this process."""

    def __init__(self) -> None:
        self.base = self.peak = self._now()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "AnonymousMemory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def growth_mb(self) -> float:
        """Return the growth from the initial to the peak size in MiB."""
        return (self.peak - self.base) / 1024

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.peak = max(self.peak, self._now())

    def _now(self) -> int:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        [line] = [line for line in status.splitlines() if line.startswith("RssAnon")]
        return int(line.split()[1])


def measure_embedding(folder: Path) -> dict[str, float]:
    import apache_beam as beam

    from components.candidate_embedder.embed import embed_candidates
    from models.input.raw_examples import split_files

    files = split_files(str(folder / "examples"), "candidates")
    started = time.monotonic()
    with AnonymousMemory() as memory:
        embed_candidates(
            str(folder / "towers"),
            spec(),
            files,
            str(folder / "embeddings"),
            lambda: beam.Pipeline(argv=list(BEAM_ARGS)),
        )
    return {"wall_s": time.monotonic() - started, "growth_mb": memory.growth_mb}


def measure_indexing(folder: Path) -> dict[str, float]:
    from components.candidate_embedder.embedding_files import EmbeddingFiles
    from components.index_builder.build import build_retrieval_model
    from components.index_builder.config import IndexConfig
    from components.index_builder.search_index import ExactIndex  # noqa: F401 - import it now
    from models.input.raw_examples import split_files
    from models.towers.saved_towers import SavedTowers

    towers = SavedTowers(str(folder / "towers"), spec())
    embeddings = EmbeddingFiles(str(folder / "embeddings"), spec())
    started = time.monotonic()
    with AnonymousMemory() as memory:
        build_retrieval_model(
            towers,
            embeddings,
            split_files(str(folder / "examples"), "eval"),
            spec(),
            IndexConfig(backend="exact", k=K, num_recall_queries=NUM_QUERIES, filters=("genres",)),
            "retrieval",
            "benchmark",
            str(folder / "model"),
        )
    return {"wall_s": time.monotonic() - started, "growth_mb": memory.growth_mb}


def measure_search(folder: Path) -> dict[str, float]:
    """Return the median latency of a query through the SavedModel in ms, by kind of filter."""
    import numpy as np
    import tensorflow as tf

    recommend = tf.saved_model.load(str(folder / "model")).signatures["recommend_excluding"]
    base = {"history": tf.zeros([1, 0], tf.string), "exclude": tf.zeros([1, 0], tf.string)}
    # The genres match about a third of the candidates, one in fifty, and one in several thousand.
    asked = {"none": [], "common": ["genre 0"], "middling": ["genre 19"], "rare": ["genre 900"]}
    found = {}
    for name, genres in asked.items():
        times = []
        for number in range(NUM_SEARCHES):
            allow = tf.constant([genres], tf.string, [1, len(genres)])
            started = time.monotonic()
            answer = recommend(user=tf.constant([f"user {number}"]), allow_genres=allow, **base)
            answer["candidate_ids"].numpy()
            times.append(1000 * (time.monotonic() - started))
        assert answer["candidate_ids"].numpy()[0, -1] != b""
        found[name] = float(np.median(times))
    return found


def in_child(which: str, folder: Path) -> dict[str, float]:
    """Run the measurement `which` in a new process."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", which, str(folder)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def for_ten_million(growths_mb: dict[str, float]) -> float:
    """Extrapolate memory growth in MB linearly from the two sizes to ten million candidates."""
    (small, large), (low, high) = SIZES.values(), (growths_mb[name] for name in SIZES)
    return high + (high - low) / (large - small) * (TEN_MILLION - large)


def rows(folder: Path) -> list[dict[str, Any]]:
    vectors_mb = TEN_MILLION * DIMENSION * 4 / 2**20
    found = []
    growths: dict[str, dict[str, float]] = {"embedding": {}, "indexing": {}}
    for label, count in SIZES.items():
        part = folder / label
        write_examples(part / "examples", count)
        write_towers(part / "towers")
        for which, measured in growths.items():
            result = in_child(which, part)
            measured[label] = result["growth_mb"]
            found.append(row(f"{which}_wall_{label}", result["wall_s"], "s"))
            found.append(row(f"{which}_memory_{label}", result["growth_mb"], "MB"))
    embedding, indexing = (for_ten_million(measured) for measured in growths.values())
    found += [
        row("embedding_memory_10m_reasoned", embedding, "MB", 2048.0, 1024.0),
        row("vectors_10m", vectors_mb, "MB"),
        row("indexing_memory_10m_reasoned", indexing, "MB"),
        row("indexing_memory_over_vectors_10m", indexing / vectors_mb, "ratio", 4.0, 2.5),
    ]
    search = in_child("search", folder / "1m")
    found += [row(f"filter_{name}_p50_1m", value, "ms") for name, value in search.items()]
    slowest = max(search.values())
    found.append(row("slowest_filter_over_none_1m", slowest / search["none"], "ratio", 5.0, 2.0))
    return found


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        which, folder = options.measure
        measures = {
            "embedding": measure_embedding,
            "indexing": measure_indexing,
            "search": measure_search,
        }
        print(json.dumps(measures[which](Path(folder))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = rows(Path(folder))
    about = environment("tfx", "apache-beam", "tensorflow", "pyarrow", "numpy")
    return report(about, found, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
