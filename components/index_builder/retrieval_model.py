"""The retrieval SavedModel: raw queries in, candidate ids and scores out."""

import tensorflow as tf

from components.index_builder.search_index import SearchIndex
from models.export import EMBED_CANDIDATE, EMBED_QUERY, EMBEDDING_KEY
from models.features import EXCLUDE_KEY, FeatureSpec
from models.raw_inputs import candidate_inputs, query_inputs, same_batch
from models.saved_towers import SavedTowers

SERVING_DEFAULT = "serving_default"
RECOMMEND_EXCLUDING = "recommend_excluding"
SIMILAR_CANDIDATES = "similar_candidates"
CANDIDATE_IDS_KEY = "candidate_ids"
SCORES_KEY = "scores"


class RetrievalModel(tf.Module):
    """Answers over an index with the signatures that every backend shares.

    An answer has `min(k, num_candidates)` columns. Where fewer candidates are left, after
    exclusion, the last columns hold "" and the least float32.

    Args:
        towers: As exported by the trainer; saved along.
        index: Over the catalogue's vectors.
        ids_file: The candidate ids in the index's order, one a line; becomes an asset.
        spec: Ids and features.
        k: Candidates in an answer.
    """

    def __init__(
        self,
        towers: SavedTowers,
        index: SearchIndex,
        ids_file: str,
        spec: FeatureSpec,
        k: int,
    ) -> None:
        super().__init__()
        self._towers = towers.module
        self._index = index
        self._index_of = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                ids_file,
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            default_value=-1,
        )
        with tf.io.gfile.GFile(ids_file, "rb") as lines:
            ids = lines.read().split(b"\n")[:-1]
        self._ids = tf.Variable(ids, dtype=tf.string, trainable=False, name="ids")
        self._num_candidates = len(ids)
        self._spec = spec
        self._k = min(k, len(ids))

    def recommend(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the best candidates for raw queries (`models.raw_inputs.query_inputs`)."""
        queries = self._towers.signatures[EMBED_QUERY](**inputs)[EMBEDDING_KEY]
        ids, scores = self._search(queries, tf.constant(self._k))
        return self._answer(ids, scores)

    def recommend_excluding(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """As `recommend`, without the candidates in `exclude` `[batch, m]`."""
        rows = same_batch(inputs)
        exclude = rows.pop(EXCLUDE_KEY)
        queries = self._towers.signatures[EMBED_QUERY](**rows)[EMBEDDING_KEY]
        return self._search_without(queries, exclude)

    def similar(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the candidates nearest to candidates `[batch]`, without themselves.

        A candidate that the index does not hold has an empty answer.
        """
        ids = inputs[self._spec.candidate_id]
        indices = self._index_of.lookup(ids)
        answer = self._search_without(self._index.vectors_at(tf.maximum(indices, 0)), ids[:, None])
        known = (indices >= 0)[:, None]
        return self._answer(
            tf.where(known, answer[CANDIDATE_IDS_KEY], ""),
            tf.where(known, answer[SCORES_KEY], tf.float32.min),
        )

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Traces the signatures of the served contract."""
        query = query_inputs(self._spec)
        candidate = candidate_inputs(self._spec)
        candidate_id = {self._spec.candidate_id: candidate[self._spec.candidate_id]}
        exclude = {EXCLUDE_KEY: tf.TensorSpec([None, None], tf.string, EXCLUDE_KEY)}
        towers = self._towers.signatures
        traced = {
            SERVING_DEFAULT: (self.recommend, query),
            RECOMMEND_EXCLUDING: (self.recommend_excluding, {**query, **exclude}),
            SIMILAR_CANDIDATES: (self.similar, candidate_id),
            EMBED_QUERY: (lambda **inputs: towers[EMBED_QUERY](**inputs), query),
            EMBED_CANDIDATE: (lambda **inputs: towers[EMBED_CANDIDATE](**inputs), candidate),
        }
        return {
            name: tf.function(function, autograph=False).get_concrete_function(**tensors)
            for name, (function, tensors) in traced.items()
        }

    def _search(self, queries: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        indices, scores = self._index.search(queries, count)
        return tf.gather(self._ids, indices), scores

    def _search_without(self, queries: tf.Tensor, exclude: tf.Tensor) -> dict[str, tf.Tensor]:
        # Enough more candidates that k remain whatever is excluded.
        count = tf.minimum(self._k + tf.shape(exclude)[1], self._num_candidates)
        ids, scores = self._search(queries, count)
        excluded = tf.reduce_any(ids[:, :, None] == exclude[:, None, :], axis=2)
        scores = tf.where(excluded, tf.float32.min, scores)
        ids = tf.where(excluded, "", ids)
        scores, order = tf.math.top_k(scores, self._k)
        return self._answer(tf.gather(ids, order, batch_dims=1), scores)

    def _answer(self, ids: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = [None, self._k]
        return {
            CANDIDATE_IDS_KEY: tf.ensure_shape(ids, shape),
            SCORES_KEY: tf.ensure_shape(scores, shape),
        }
