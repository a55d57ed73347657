"""Measure memory and time of a large catalogue: embedding, indexing, and search with filters.

Candidates have an ID, a price, and up to three of 1,000 genres, whose frequencies follow Zipf's
law. The towers have 64 dimensions and take almost no time. Each measurement runs in a new process.
Memory is the peak of the anonymous resident size minus its size after the imports. For ten million
candidates, it is extrapolated linearly from 250,000 and 1,000,000.

Usage: python benchmarks/catalogue.py [--json]
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks._processes import Measured, measure_call
from benchmarks._report import Row, options_parser, row, run

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

    genres, price = {"kind": "categorical", "separator": "|"}, {"kind": "numeric"}
    columns = {"query_id": "user", "candidate_id": "item"}
    features = {"candidate": {"genres": genres, "price": price}}
    return FeatureSpec.model_validate({"columns": columns, "features": features})


def write_examples(folder: Path, count: int) -> None:
    """Write the split `candidates` as ingestion does, and an `eval` split with 64 queries."""
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
    """Save towers whose embeddings are pseudo-random functions of the ID."""
    import tensorflow as tf

    from models.input.raw_inputs import same_batch
    from models.towers.export import save_towers

    frequencies = tf.constant([[1.0 + 0.37 * index for index in range(DIMENSION)]])

    def vectors(raw: Any, name: str) -> Any:
        ids = same_batch(raw)[name]
        seeds = tf.cast(tf.strings.to_hash_bucket_fast(ids, 1 << 20), tf.float32)
        return {"embedding": tf.sin(seeds[:, None] * frequencies)}

    save_towers(
        tf.Module(),
        spec(),
        lambda **raw: vectors(raw, "user"),
        lambda **raw: vectors(raw, "item"),
        str(directory),
    )


def prepare_embedding(folder: str) -> Callable[[], None]:
    """Return a function that embeds the candidates in a folder."""
    import apache_beam as beam

    from components.candidate_embedder.embed import embed_candidates
    from models.input.raw_examples import split_files

    files = split_files(f"{folder}/examples", "candidates")

    def embed() -> None:
        new_pipeline = lambda: beam.Pipeline(argv=list(BEAM_ARGS))  # noqa: E731
        embed_candidates(f"{folder}/towers", spec(), files, f"{folder}/embeddings", new_pipeline)

    return embed


def prepare_indexing(folder: str) -> Callable[[], None]:
    """Return a function that builds the retrieval model from the embeddings in a folder."""
    from components.candidate_embedder.embedding_files import EmbeddingFiles
    from components.index_builder.build import build_retrieval_model
    from components.index_builder.config import IndexConfig
    from components.index_builder.search_index import ExactIndex  # noqa: F401 - import it now
    from models.input.raw_examples import split_files
    from models.towers.saved_towers import SavedTowers

    config = IndexConfig(backend="exact", k=K, num_recall_queries=NUM_QUERIES, filters=("genres",))
    towers = SavedTowers(f"{folder}/towers", spec())
    embeddings = EmbeddingFiles(f"{folder}/embeddings", spec())
    queries = split_files(f"{folder}/examples", "eval")

    def build() -> None:
        build_retrieval_model(
            towers, embeddings, queries, spec(), config, "retrieval", "benchmark", f"{folder}/model"
        )

    return build


def prepare_search(folder: str) -> Callable[[], dict[str, float]]:
    """Return a function that measures the median latency of a query in ms, by kind of filter."""
    import tensorflow as tf

    model = tf.saved_model.load(f"{folder}/model")
    recommend = model.signatures["recommend_excluding"]
    base = {"history": tf.zeros([1, 0], tf.string), "exclude": tf.zeros([1, 0], tf.string)}
    base["exclude_seen"] = tf.constant([False])
    # The genres match about a third of the candidates, one in fifty, and one in several thousand.
    asked = {"none": [], "common": ["genre 0"], "middling": ["genre 19"], "rare": ["genre 900"]}

    def latency_ms(genres: list[str]) -> float:
        allow = tf.constant([genres], tf.string, [1, len(genres)])
        times = []
        for number in range(NUM_SEARCHES):
            started = time.monotonic()
            answer = recommend(user=tf.constant([f"user {number}"]), allow_genres=allow, **base)
            found = answer["candidate_ids"].numpy()
            times.append(1000 * (time.monotonic() - started))
            assert found[0, -1] != b"", f"fewer than {K} candidates have {genres}"
        return float(np.median(times))

    def search() -> dict[str, float]:
        assert model is not None  # a signature does not keep its model alive
        return {name: latency_ms(genres) for name, genres in asked.items()}

    return search


def measured(which: str, folder: Path) -> Measured:
    return measure_call(f"benchmarks.catalogue:{which}", str(folder), log=folder / f"{which}.log")


def for_ten_million(growths_mb: dict[str, float]) -> float:
    """Extrapolate memory growth in MB linearly from the two sizes to ten million candidates."""
    (small, large), (low, high) = SIZES.values(), (growths_mb[name] for name in SIZES)
    return high + (high - low) / (large - small) * (TEN_MILLION - large)


def rows(options: Any, folder: Path) -> Iterator[Row]:
    growths: dict[str, dict[str, float]] = {"embedding": {}, "indexing": {}}
    for label, count in SIZES.items():
        part = folder / label
        write_examples(part / "examples", count)
        write_towers(part / "towers")
        for which, growth in growths.items():
            result = measured(f"prepare_{which}", part)
            growth[label] = result["growth_mb"]
            yield row(f"{which}_wall_{label}", result["wall_s"], "s")
            yield row(f"{which}_memory_{label}", result["growth_mb"], "MB")
    vectors_mb = TEN_MILLION * DIMENSION * 4 / 2**20
    embedding, indexing = map(for_ten_million, growths.values())
    yield row("embedding_memory_10m_reasoned", embedding, "MB", 2048.0, 1024.0)
    yield row("vectors_10m", vectors_mb, "MB")
    yield row("indexing_memory_10m_reasoned", indexing, "MB")
    yield row("indexing_memory_over_vectors_10m", indexing / vectors_mb, "ratio", 4.0, 2.5)
    search = measured("prepare_search", folder / "1m")["returned"]
    for name, latency_ms in search.items():
        yield row(f"filter_{name}_p50_1m", latency_ms, "ms")
    slowest = max(search.values()) / search["none"]
    yield row("slowest_filter_over_none_1m", slowest, "ratio", 5.0, 2.0)


if __name__ == "__main__":
    run(options_parser(__doc__), rows, "tfx", "apache-beam", "tensorflow", "pyarrow", "numpy")
