"""Compare the approximate indexes with exact search, on the same vectors in the same run.

The vectors have 64 dimensions, and k is 100. The candidates are in 2,000 clusters of unequal size
on 24 factors, with noise. A query is the sum of one to three candidates, with noise. Each index is
chosen and tuned as in IndexBuilder, saved as a SavedModel, and called through a TF1 Session with
the settings of the model server. Exact search is TensorFlow's matrix product and top-k. Tuning and
measurement use different queries, and the measurements alternate between the indexes. The bounds
apply to a million candidates.

`--vectors PATH` reads the candidates from the Parquet files of CandidateEmbedder instead: one file,
or a folder. Queries are made from them in the same way.

`--against CHECKOUT` adds the ScaNN index of another checkout, which must have its own `.venv`, for
vectors of 64 dimensions.
Memory is what a new process takes for loading a model and answering one batch. `--peers FOLDER`
adds hnswlib, faiss and usearch from the `site-packages` of an environment that has them, each with
the cheapest search that reaches the recall.

Usage: python benchmarks/index.py [--json] [--candidates 1000000 | --vectors PATH] [--rounds 5]
    [--against CHECKOUT] [--peers FOLDER]
"""

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import models  # noqa: F401, I001 - chooses Keras 2 before TensorFlow is imported
import numpy as np
import psutil
import pyarrow.parquet as pq
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from benchmarks._report import Row, options_parser, row, run
from components.index_builder.config import IndexConfig
from components.index_builder.index_choice import choose_index
from components.index_builder.recall import ExactAnswers, exact_answers, recall_of_each
from components.index_builder.search_index import ExactIndex
from models.towers.export import EMBEDDING_KEY

DIMENSION, K, BATCH, TARGET = 64, 100, 128, 0.95
NUM_TUNING, NUM_JUDGING = 1000, 1024
SINGLES_PER_ROUND, BATCHES_PER_ROUND = 60, 4
EXACT = "exact_tf"
FULL_SIZE = 1_000_000
# `must` and `aim` for single queries and for batches, as multiples of exact search.
BOUNDS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "scann": ((25, 40), (30, 45)),
    "partitioned": ((6, 15), ()),
}

AGAINST = "against"
BUILD = """
import sys
import numpy as np
from benchmarks.index import K, TARGET, through_session
from components.index_builder.config import IndexConfig
from components.index_builder.index_choice import choose_index
vectors, tuning = (np.load(f"{sys.argv[1]}/{name}.npy") for name in ("vectors", "tuning"))
config = IndexConfig(backend="scann", k=K, recall_target=TARGET)
choice = choose_index(vectors, tuning, config)
print(f"against: {dict(choice.settings)}; {choice.reason}", file=sys.stderr, flush=True)
through_session(choice.index, f"{sys.argv[1]}/against")
"""
MEMORY = """
import sys
from benchmarks.index import loaded_mb
print(loaded_mb(sys.argv[1], int(sys.argv[2])))
"""

Search = Callable[[Any], tuple[Any, Any]]


def clustered_vectors(num_candidates: int, rng: np.random.Generator) -> Any:
    """Return the unit vectors of candidates in clusters."""
    num_clusters, num_factors = 2000, 24
    factors = rng.normal(size=(num_factors, DIMENSION)).astype(np.float32) / np.sqrt(num_factors)
    centres = rng.normal(size=(num_clusters, num_factors)).astype(np.float32)
    weights = 1 / np.arange(1, num_clusters + 1) ** 0.7
    vectors = np.empty((num_candidates, DIMENSION), np.float32)
    for start in range(0, num_candidates, 100_000):
        rows = min(100_000, num_candidates - start)
        members = centres[rng.choice(num_clusters, rows, p=weights / weights.sum())]
        points = members + 0.5 * rng.normal(size=(rows, num_factors)).astype(np.float32)
        noise = 0.2 * rng.normal(size=(rows, DIMENSION)).astype(np.float32)
        vectors[start : start + rows] = unit(points @ factors + noise)
    return vectors


def read_vectors(path: str) -> Any:
    """Return the vectors in Parquet files of CandidateEmbedder."""
    column = pq.read_table(path, columns=[EMBEDDING_KEY])[EMBEDDING_KEY].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


def queries_near(vectors: Any, num_queries: int, rng: np.random.Generator) -> Any:
    """Return the unit vectors of queries that differ from all candidates."""
    num_candidates, dimension = vectors.shape
    mixed = rng.integers(1, 4, num_queries)
    queries = np.zeros((num_queries, dimension), np.float32)
    for number in range(3):
        items = vectors[rng.integers(0, num_candidates, num_queries)]
        queries += np.where((number < mixed)[:, None], items, 0)
    noise = rng.normal(size=queries.shape).astype(np.float32) / np.sqrt(dimension)
    return unit(unit(queries) + np.float32(0.2) * noise)


def unit(rows: Any) -> Any:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def through_session(index: Any, directory: str, dimension: int = DIMENSION) -> Search:
    """Save the index as a SavedModel, load it as the model server does, and return its search."""
    module = tf.Module()
    module.index = index
    search = tf.function(
        lambda queries: dict(zip(("indices", "scores"), index.search(queries, K), strict=True)),
        [tf.TensorSpec([None, dimension], name="queries")],
        autograph=False,
    ).get_concrete_function()
    tf.saved_model.save(module, directory, signatures=search)
    return loaded_search(directory)


def loaded_search(directory: str) -> Search:
    """Load a saved index as the model server does, and return its search."""
    graph = tf.Graph()
    session = tf.compat.v1.Session(
        graph=graph, config=config_pb2.ConfigProto(inter_op_parallelism_threads=-1)
    )
    with graph.as_default():
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], directory)
    signature = loaded.signature_def["serving_default"]
    call: Search = session._make_callable_from_options(
        config_pb2.CallableOptions(
            feed=[signature.inputs["queries"].name],
            fetch=[signature.outputs[name].name for name in ("indices", "scores")],
        )
    )
    return call


def loaded_mb(directory: str, dimension: int) -> float:
    """Return the memory in MB that a saved index takes in this process, after one batch."""
    from scann.scann_ops.py import scann_ops  # noqa: F401 - registers its operations

    process = psutil.Process()
    before = process.memory_info().rss
    search = loaded_search(directory)  # keeps the session
    search(np.ones((BATCH, dimension), np.float32))
    return float((process.memory_info().rss - before) / 1e6)


def peers(vectors: Any) -> Iterator[tuple[str, Callable[[int], None], Sequence[int], Search]]:
    """Yield the name, a setter of the search effort, its values, and the search of each peer."""
    import faiss
    import hnswlib
    from usearch.index import Index

    efforts = [100, 140, 200, 280, 400, 560, 800]
    graph = hnswlib.Index("ip", vectors.shape[1])
    graph.init_index(len(vectors), ef_construction=80, M=16)
    graph.add_items(vectors)
    yield "hnswlib", graph.set_ef, efforts, lambda queries: graph.knn_query(queries, K)
    other = Index(ndim=vectors.shape[1], metric="ip", dtype="f32", expansion_add=80)
    other.add(np.arange(len(vectors)), vectors)

    def search(queries: Any) -> tuple[Any, Any]:
        found = other.search(queries, K)
        return found.keys.reshape(-1, K), found.distances

    yield "usearch", partial(setattr, other, "expansion_search"), efforts, search
    probes = [8, 12, 16, 24, 32, 48, 64, 96, 128]
    kinds = {"faiss_ivf_flat": "IVF2000,Flat", "faiss_ivf_pq": "IVF2000,PQ32x4fs,Refine(SQ8)"}
    for name, factory in kinds.items():
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[:100_000])
        index.add(vectors)
        if name == "faiss_ivf_pq":
            index.k_factor = 4  # as many neighbours are rescored as ScaNN rescores at most
        set_probes = partial(setattr, faiss.extract_index_ivf(index), "nprobe")
        yield name, set_probes, probes, partial(_swapped, index)


def _swapped(index: Any, queries: Any) -> tuple[Any, Any]:
    scores, indices = index.search(queries, K)
    return indices, scores


def peer_searches(vectors: Any, tuning: ExactAnswers) -> dict[str, Search]:
    """Return the searches of the peers, with the least effort that reaches the recall."""
    found: dict[str, Search] = {}
    for name, set_effort, efforts, search in peers(vectors):
        for effort in efforts:
            set_effort(effort)
            if recall(search, vectors, tuning) >= TARGET:
                break
        print(f"{name}: effort {effort}", file=sys.stderr, flush=True)
        found[name] = search
    return found


def recall(search: Search, vectors: Any, truth: ExactAnswers) -> float:
    """Return the mean recall of a search in batches."""
    starts = range(0, len(truth.queries), BATCH)
    parts = [search(truth.queries[start : start + BATCH])[0] for start in starts]
    return float(recall_of_each(vectors, truth, np.concatenate(parts)).mean())


def of_process(code: str, *arguments: str, checkout: Path | None = None) -> str:
    """Return the output of Python code in a new process, with the modules of a checkout."""
    python = sys.executable if checkout is None else str(checkout / ".venv/bin/python")
    folder = checkout or Path(__file__).resolve().parent.parent
    command = [python, "-W", "ignore", "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
    )
    return done.stdout


def measure(
    searches: dict[str, Search], queries: Any, rounds: int
) -> dict[str, tuple[float, float]]:
    """Return the median latency of single queries in ms, and the queries per second in batches.

    The measurements alternate between the indexes.
    """
    times: defaultdict[tuple[str, int], list[float]] = defaultdict(list)

    def timed(search: Search, first: int, size: int) -> float:
        rows = queries[first % (len(queries) - size + 1) :][:size]
        started = time.perf_counter()
        search(rows)
        return time.perf_counter() - started

    for search in searches.values():
        search(queries[:1])
        search(queries[:BATCH])
    for turn in range(rounds):
        for name, search in searches.items():
            for size, count in ((1, SINGLES_PER_ROUND), (BATCH, BATCHES_PER_ROUND)):
                for number in range(turn * count, (turn + 1) * count):
                    times[name, size].append(timed(search, number * size, size))
    median = {key: float(np.median(values)) for key, values in times.items()}
    return {name: (median[name, 1] * 1e3, BATCH / median[name, BATCH]) for name in searches}


def rows(options: Any, scratch: Path) -> Iterator[Row]:
    for found in measured_rows(options, scratch):
        is_full = options.candidates >= FULL_SIZE and not options.vectors
        yield found if is_full else {**found, "must": None, "aim": None, "met": None}


def measured_rows(options: Any, scratch: Path) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    if options.vectors:
        vectors = read_vectors(options.vectors)
    else:
        vectors = clustered_vectors(options.candidates, rng)
    dimension = vectors.shape[1]
    queries = queries_near(vectors, NUM_TUNING + NUM_JUDGING, rng)
    tuning, judging = queries[:NUM_TUNING], queries[NUM_TUNING:]
    truth = exact_answers(vectors, judging, K)
    searches = {EXACT: through_session(ExactIndex(vectors), f"{scratch}/{EXACT}", dimension)}
    for backend in BOUNDS:
        started = time.perf_counter()
        config = IndexConfig(backend=backend, k=K, recall_target=TARGET)
        choice = choose_index(vectors, tuning, config)
        seconds = time.perf_counter() - started
        print(f"{backend}: {dict(choice.settings)}; {choice.reason}", file=sys.stderr, flush=True)
        yield row(f"{backend}_choose_and_build", seconds, "s", 180, 60)
        searches[backend] = through_session(choice.index, f"{scratch}/{backend}", dimension)
        del choice
    if options.against:
        np.save(scratch / "vectors.npy", vectors)
        np.save(scratch / "tuning.npy", tuning)
        of_process(BUILD, str(scratch), checkout=Path(options.against).resolve())
        searches[AGAINST] = loaded_search(f"{scratch}/{AGAINST}")
    memory_mb = {
        name: float(of_process(MEMORY, f"{scratch}/{name}", str(dimension)))
        for name in searches
        if name != EXACT
    }
    if options.peers:
        sys.path.append(options.peers)
        searches |= peer_searches(vectors, exact_answers(vectors, tuning, K))
    for name, search in searches.items():
        if name != EXACT:
            must = TARGET if name in BOUNDS else None
            found = recall(search, vectors, truth)
            yield row(f"{name}_recall@{K}", found, "share", must, larger_is_better=True)
    measured = measure(searches, judging, options.rounds)
    for name, (p50_ms, per_s) in measured.items():
        yield row(f"{name}_single_p50", p50_ms, "ms")
        yield row(f"{name}_batch_{BATCH}", per_s, "queries/s")
    for name, found in memory_mb.items():
        yield row(f"{name}_memory", found, "MB")
    if options.against:
        more = measured["scann"][1] / measured[AGAINST][1]
        less = memory_mb["scann"] / memory_mb[AGAINST]
        yield row("scann_batch_over_against", more, "times", 1.1, 1.5, larger_is_better=True)
        yield row("scann_memory_over_against", less, "ratio", 0.75)
    exact_p50_ms, exact_per_s = measured.pop(EXACT)
    for name, (p50_ms, per_s) in measured.items():
        single, batch = BOUNDS.get(name, ((), ()))
        faster, more = exact_p50_ms / p50_ms, per_s / exact_per_s
        yield row(f"{name}_single_over_exact", faster, "times", *single, larger_is_better=True)
        yield row(f"{name}_batch_over_exact", more, "times", *batch, larger_is_better=True)
    share = measured["partitioned"][1] / measured["scann"][1]
    yield row("partitioned_batch_over_scann", share, "ratio", 1 / 15, 0.2, larger_is_better=True)


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("--candidates", type=int, default=FULL_SIZE)
    parser.add_argument("--vectors", help="Parquet file or folder of CandidateEmbedder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", help="another checkout with its .venv")
    parser.add_argument("--peers", help="site-packages with hnswlib, faiss and usearch")
    run(parser, rows, "tensorflow", "scann", "numpy")
