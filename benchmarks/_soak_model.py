"""Write several retrieval models, and their answers to some queries, for the soak test.

Usage: python benchmarks/_soak_model.py DIRECTORY NUM_CANDIDATES

Each model is in a folder `variant_N`. `queries.json` contains the queries and the answers of each
variant, which are computed in this process.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

VARIANTS = 4
DIMENSION = 64
K = 20
NUM_USERS = 500
NUM_QUERIES = 60
_LONGEST_HISTORY = 30


def make_model(variant: int, num_candidates: int) -> tuple[Any, dict[str, Any]]:
    """Return a module with random towers over an exact index, and its signatures."""
    import tensorflow as tf

    rng = np.random.default_rng(variant)
    ids = [f"item {row}" for row in range(num_candidates)]

    def table(keys: list[str]) -> Any:
        rows = tf.range(len(keys), dtype=tf.int64)
        initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(keys), rows)
        return tf.lookup.StaticHashTable(initializer, len(keys))

    def vectors(count: int) -> Any:
        # The last row is for unknown ids and consists of zeros.
        known = rng.normal(size=(count, DIMENSION)).astype(np.float32)
        return tf.Variable(np.concatenate([known, np.zeros((1, DIMENSION), np.float32)]))

    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items, self.users = table(ids), table([f"user {row}" for row in range(NUM_USERS)])
            self.item_vectors, self.user_vectors = vectors(num_candidates), vectors(NUM_USERS)
            self.ids = tf.Variable([*ids, ""], trainable=False)

        def embed(self, user_id: Any, history: Any) -> Any:
            events = tf.gather(self.item_vectors, self.items.lookup(history))
            user = tf.gather(self.user_vectors, self.users.lookup(user_id))
            return user + 0.1 * tf.reduce_sum(events, axis=1)

        def search(self, queries: Any, hidden: Any) -> dict[str, Any]:
            scores = tf.matmul(queries, self.item_vectors[:-1], transpose_b=True)
            rows = tf.repeat(tf.range(tf.shape(hidden)[0])[:, None], tf.shape(hidden)[1], axis=1)
            positions = tf.stack([tf.cast(rows, tf.int64), self.items.lookup(hidden)], axis=2)
            known = tf.boolean_mask(positions, positions[:, :, 1] < num_candidates)
            lowered = tf.fill([tf.shape(known)[0]], np.float32(-1e6))
            scores = tf.tensor_scatter_nd_add(scores, known, lowered)
            values, best = tf.math.top_k(scores, K)
            return {
                "candidate_ids": tf.ensure_shape(tf.gather(self.ids, best), [None, K]),
                "scores": tf.ensure_shape(values, [None, K]),
            }

    model = Model()
    text = tf.TensorSpec([None], tf.string, "user_id")
    texts = {name: tf.TensorSpec([None, None], tf.string, name) for name in ("history", "exclude")}
    none = tf.constant([[]], tf.string)

    @tf.function(input_signature=[text, texts["history"]])
    def recommend(user_id: Any, history: Any) -> Any:
        hidden = tf.repeat(none, tf.shape(user_id)[0], axis=0)
        return model.search(model.embed(user_id, history), hidden)

    @tf.function(input_signature=[text, texts["history"], texts["exclude"]])
    def recommend_excluding(user_id: Any, history: Any, exclude: Any) -> Any:
        return model.search(model.embed(user_id, history), exclude)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "item_id")])
    def similar(item_id: Any) -> Any:
        queries = tf.gather(model.item_vectors, model.items.lookup(item_id))
        return model.search(queries, item_id[:, None])

    return model, {
        "serving_default": recommend,
        "recommend_excluding": recommend_excluding,
        "similar_candidates": similar,
    }


def make_queries(num_candidates: int) -> list[dict[str, Any]]:
    """Return queries with histories of random lengths; every third excludes its history."""
    rng = np.random.default_rng(99)
    queries = []
    for number in range(NUM_QUERIES):
        # Some of the users and events are unknown to the model.
        events = rng.integers(0, num_candidates + 5, rng.integers(0, _LONGEST_HISTORY))
        queries.append(
            {
                "user_id": f"user {rng.integers(0, NUM_USERS + 10)}",
                "history": [f"item {event}" for event in events],
                "excludes": number % 3 == 2,
            }
        )
    return queries


def answers(signatures: dict[str, Any], queries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each query, the recommendations and the candidates similar to one item."""
    import tensorflow as tf

    def told(output: dict[str, Any]) -> dict[str, Any]:
        ids = [name.decode() for name in output["candidate_ids"].numpy()[0].tolist()]
        return {"ids": ids, "scores": output["scores"].numpy()[0].tolist()}

    found = []
    for number, query in enumerate(queries):
        user = tf.constant([query["user_id"]])
        history = tf.constant([query["history"]], tf.string)
        if query["excludes"]:
            best = signatures["recommend_excluding"](user, history, history)
        else:
            best = signatures["serving_default"](user, history)
        similar = signatures["similar_candidates"](tf.constant([f"item {number}"]))
        found.append({"best": told(best), "similar": told(similar)})
    return found


def write_warmup(directory: Path, queries: list[dict[str, Any]]) -> None:
    """Write the warm-up requests, which a server runs before a version becomes available."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    (directory / "assets.extra").mkdir()
    file = str(directory / "assets.extra" / "tf_serving_warmup_requests")
    with tf.io.TFRecordWriter(file) as writer:
        for query in queries[:3]:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "retrieval"
            request.inputs["user_id"].CopyFrom(tf.make_tensor_proto([query["user_id"]]))
            history = tf.make_tensor_proto([query["history"]], tf.string)
            request.inputs["history"].CopyFrom(history)
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())


def main() -> None:
    directory, num_candidates = Path(sys.argv[1]), int(sys.argv[2])
    import tensorflow as tf

    queries = make_queries(num_candidates)
    told = []
    for variant in range(VARIANTS):
        model, signatures = make_model(variant, num_candidates)
        path = directory / f"variant_{variant}"
        tf.saved_model.save(model, str(path), signatures=signatures)
        write_warmup(path, queries)
        told.append(answers(signatures, queries))
    content = {"queries": queries, "answers": told}
    (directory / "queries.json").write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main()
