"""Export a retrieval SavedModel with random towers and a given size, for serving benchmarks.

Usage: python benchmarks/_serving_model.py DIRECTORY NUM_CANDIDATES BACKEND [NUM_USERS]
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt

DIMENSION = 64
K = 100
NUM_USERS = 50_000
QUERY_ID, CANDIDATE_ID = "user_id", "item_id"
_NUM_CLUSTERS = 2_000
_SEED = 42


def clustered_vectors(count: int, seed: int = _SEED) -> npt.NDArray[np.float32]:
    """Return unit vectors `[count, 64]` in clusters whose sizes follow Zipf's law."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(_NUM_CLUSTERS, 24)) @ rng.normal(size=(24, DIMENSION))
    weights = 1 / np.arange(1, _NUM_CLUSTERS + 1)
    members = rng.choice(_NUM_CLUSTERS, count, p=weights / weights.sum())
    vectors = centres[members] + rng.normal(scale=2.0, size=(count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def query_inputs(rng: np.random.Generator, batch: int, num_candidates: int) -> dict[str, Any]:
    """Return the inputs of random queries, each with a user and a history of ten events."""
    return {
        QUERY_ID: np.array(
            [f"u{row}".encode() for row in rng.integers(0, NUM_USERS, batch)], object
        ),
        "history": np.array(
            [
                [f"item_{row}".encode() for row in rng.integers(0, num_candidates, 10)]
                for _ in range(batch)
            ],
            object,
        ),
    }


def export(directory: Path, num_candidates: int, backend: str, num_users: int = NUM_USERS) -> None:
    """Write a SavedModel with the signatures of a real retrieval model."""
    import tensorflow as tf

    from components.index_builder.catalogue_files import CatalogueFiles
    from components.index_builder.retrieval_model import SERVING_DEFAULT, RetrievalModel
    from components.index_builder.saved_retrieval_model import save_retrieval_model
    from components.index_builder.scann_index import ScannIndex, ScannSettings
    from components.index_builder.search_index import ExactIndex
    from models.features.spec import ColumnsConfig, FeatureSpec
    from models.input.raw_inputs import candidate_inputs, same_batch
    from models.input.raw_inputs import query_inputs as query_specs
    from models.towers.export import EMBED_CANDIDATE, EMBED_QUERY, EMBEDDING_KEY
    from models.towers.saved_towers import SavedTowers

    spec = FeatureSpec(columns=ColumnsConfig(query_id=QUERY_ID, candidate_id=CANDIDATE_ID))
    vectors = clustered_vectors(num_candidates)
    # Query embeddings differ from all items: they are the sum of a user vector (the mean of three
    # items) and the mean of the history.
    rng = np.random.default_rng(_SEED + 1)
    users = vectors[rng.integers(0, num_candidates, (num_users, 3))].mean(axis=1)
    ids = [f"item_{row}" for row in range(num_candidates)]

    def table(keys: list[str]) -> Any:
        initializer = tf.lookup.KeyValueTensorInitializer(
            tf.constant(keys), tf.range(len(keys), dtype=tf.int64)
        )
        return tf.lookup.StaticHashTable(initializer, len(keys))  # unknown ids: row of zeros

    def with_unknown(rows: npt.NDArray[np.float32]) -> Any:
        return tf.Variable(np.concatenate([rows, np.zeros((1, DIMENSION), np.float32)]))

    class Towers(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.user_vectors = table([f"u{i}" for i in range(num_users)]), None
            self.user_vectors = with_unknown(users)
            self.items, self.item_vectors = table(ids), with_unknown(vectors)

        def embed_query(self, **inputs: Any) -> dict[str, Any]:
            rows = same_batch(inputs)
            history = tf.gather(self.item_vectors, self.items.lookup(rows["history"]))
            seen = tf.cast(rows["history"] != "", tf.float32)
            mean = tf.math.divide_no_nan(
                tf.reduce_sum(history, axis=1), tf.reduce_sum(seen, axis=1)[:, None]
            )
            user = tf.gather(self.user_vectors, self.users.lookup(rows[QUERY_ID]))
            return {EMBEDDING_KEY: tf.math.l2_normalize(user + mean, axis=1)}

        def embed_candidate(self, **inputs: Any) -> dict[str, Any]:
            return {
                EMBEDDING_KEY: tf.gather(self.item_vectors, self.items.lookup(inputs[CANDIDATE_ID]))
            }

    towers = Towers()
    with tempfile.TemporaryDirectory() as scratch:
        traced = {
            EMBED_QUERY: (towers.embed_query, query_specs(spec)),
            EMBED_CANDIDATE: (towers.embed_candidate, candidate_inputs(spec)),
        }
        tf.saved_model.save(
            towers,
            f"{scratch}/towers",
            signatures={
                name: tf.function(function, autograph=False).get_concrete_function(**specs)
                for name, (function, specs) in traced.items()
            },
        )
        ids_file = Path(scratch, "ids.txt")
        ids_file.write_text(
            "".join(f"{line.decode()}\n" for line in tf.io.encode_base64(ids).numpy())
        )
        index: Any = ExactIndex(vectors)
        if backend == "scann":
            # For 100,000 candidates: 316 leaves, 64 searched, 400 rescored; recall@100 >= 0.95.
            settings = ScannSettings.choose(num_candidates, K, None, None, None)
            index = ScannIndex(vectors, K, settings)
        catalogue = CatalogueFiles(str(ids_file), num_candidates, {})
        model = RetrievalModel(SavedTowers(f"{scratch}/towers", spec), index, catalogue, spec, K)
        query = query_inputs(np.random.default_rng(0), 1, num_candidates)
        warmup = [(SERVING_DEFAULT, {name: tf.constant(rows) for name, rows in query.items()})]
        save_retrieval_model(model, str(directory), "retrieval", warmup, identity="")


if __name__ == "__main__":
    export(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))
