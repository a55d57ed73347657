"""Retrieval models with random towers and a given size, and their requests, for benchmarks."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.clients import messages_pb2

DIMENSION = 64
K = 100
NUM_USERS = 50_000
QUERY_ID, CANDIDATE_ID = "user_id", "item_id"
DT_FLOAT, DT_STRING = 1, 7
_NUM_CLUSTERS = 2_000
_EVENTS = 20


def clustered_vectors(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Return unit vectors `[count, 64]` in clusters whose sizes follow Zipf's law."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(_NUM_CLUSTERS, 24)) @ rng.normal(size=(24, DIMENSION))
    weights = 1 / np.arange(1, _NUM_CLUSTERS + 1)
    members = rng.choice(_NUM_CLUSTERS, count, p=weights / weights.sum())
    vectors = centres[members] + rng.normal(scale=2.0, size=(count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def query_inputs(rng: np.random.Generator, num_candidates: int) -> dict[str, Any]:
    """Return the inputs of a random query, with a user and a history of ten events."""
    user, events = rng.integers(0, NUM_USERS), rng.integers(0, num_candidates, 10)
    history = [f"item_{event}".encode() for event in events]
    return {
        QUERY_ID: np.array([f"u{user}".encode()], object),
        "history": np.array([history], object),
    }


def predict_body(model: str = "retrieval", signature: str = "", **changes: Any) -> bytes:
    """Return the body of a valid PredictRequest, except for the parts that the arguments change.

    Args:
        model: The model.
        signature: The signature.
        changes: Other fields of the ModelSpec; or inputs, as their shape, values and data type,
            which need not match.
    """
    inputs: dict[str, tuple[Any, ...]] = {
        "user_id": ([1], [b"u1"]),
        "history": ([1, 1], [b"item_1"]),
        **{name: changes.pop(name) for name in [*changes] if isinstance(changes[name], tuple)},
    }
    model_spec = messages_pb2.ModelSpec(name=model, signature_name=signature, **changes)
    request = messages_pb2.PredictRequest(model_spec=model_spec)
    for name, (shape, values, *dtype) in inputs.items():
        tensor = request.inputs[name]
        tensor.dtype = dtype[0] if dtype else DT_STRING
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.string_val.extend(values)
    body: bytes = request.SerializeToString()
    return body


def prepare_export(
    directory: str,
    num_candidates: str,
    backend: str,
    num_users: str = str(NUM_USERS),
    num_ranked: str = "0",
) -> Callable[[], None]:
    """Return a function that exports a model (for `measure_call`)."""
    numbers = int(num_users), int(num_ranked)
    return lambda: export(directory, int(num_candidates), backend, *numbers)


def export(
    directory: str,
    num_candidates: int,
    backend: str,
    num_users: int,
    num_ranked: int = 0,
    seed: int = 42,
) -> None:
    """Write a SavedModel with the signatures of a real retrieval model.

    With `num_ranked`, a random ranker orders that many candidates. Training timelines consist of
    successive candidates.
    """
    import tensorflow as tf

    from components.index_builder.catalogue_files import IDS_FILE, CatalogueFiles
    from components.index_builder.export import save_retrieval_model
    from components.index_builder.ranked_signatures import RankedRetrievalModel
    from components.index_builder.scann_index import ScannIndex, ScannSettings
    from components.index_builder.search_index import ExactIndex
    from components.index_builder.served_signatures import SERVING_DEFAULT, RetrievalModel
    from models.features.spec import ColumnsConfig, FeaturesConfig, FeatureSpec
    from models.input.raw_inputs import same_batch
    from models.ranking.config import RankingConfig
    from models.ranking.features import feature_names
    from models.ranking.ranker import Ranker
    from models.ranking.stage import RankingStage
    from models.ranking.tables import RankingTables, TrainingEvents
    from models.towers.export import EMBEDDING_KEY, save_towers
    from models.towers.saved_towers import SavedTowers

    spec = FeatureSpec(columns=ColumnsConfig(query_id=QUERY_ID, candidate_id=CANDIDATE_ID))
    vectors = clustered_vectors(num_candidates, seed)
    # Query embeddings differ from all items: they are the sum of a user vector (the mean of three
    # items) and the mean of the history.
    rng = np.random.default_rng(seed + 1)
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
            self.users = table([f"u{row}" for row in range(num_users)])
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
            rows = self.items.lookup(inputs[CANDIDATE_ID])
            return {EMBEDDING_KEY: tf.gather(self.item_vectors, rows)}

    towers = Towers()
    with tempfile.TemporaryDirectory() as scratch:
        towers_dir = f"{scratch}/towers"
        save_towers(towers, spec, towers.embed_query, towers.embed_candidate, towers_dir)
        ids_file = Path(scratch, IDS_FILE)
        lines = tf.strings.join([tf.io.encode_base64(ids), "\n"]).numpy()
        ids_file.write_bytes(b"".join(lines))
        index: Any = ExactIndex(vectors)
        if backend == "scann":
            # For 100,000 candidates: 316 leaves, 64 searched, 400 rescored; recall@100 >= 0.95.
            leaves, k = round(num_candidates**0.5), max(K, num_ranked)
            settings = ScannSettings(leaves, -(-leaves // 5), min(4 * k, num_candidates))
            index = ScannIndex(vectors, k, settings)
        catalogue = CatalogueFiles(str(ids_file), num_candidates, {})
        shared: dict[str, Any] = {
            "towers": SavedTowers(towers_dir, spec), "index": index, "catalogue": catalogue,
            "spec": spec, "k": K,
        }  # fmt: skip
        if num_ranked:
            starts = rng.integers(0, num_candidates - _EVENTS, 5 * num_candidates // _EVENTS)
            nth = rng.permuted(np.tile(range(_EVENTS), (len(starts), 1)), axis=1)
            events = (starts[:, None] + nth).ravel()
            offsets = np.arange(0, len(events) + 1, _EVENTS)
            training = TrainingEvents(events, rng.permutation(len(events)), offsets)
            tables = RankingTables.count(training, num_candidates)
            ranker = Ranker(RankingConfig(), feature_names(repeats=True), FeaturesConfig(), {})
            stage = RankingStage(tables, index.vectors_at, exclude_seen=False, ranker=ranker)
            model: RetrievalModel = RankedRetrievalModel(stage, num_ranked, **shared)
        else:
            model = RetrievalModel(**shared)
        query = query_inputs(np.random.default_rng(0), num_candidates)
        warmup = [(SERVING_DEFAULT, {name: tf.constant(rows) for name, rows in query.items()})]
        save_retrieval_model(model, directory, "retrieval", warmup, identity="")
