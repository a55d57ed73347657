"""The retrieval SavedModel: raw queries in, candidate ids and scores out."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from components.index_builder.candidate_filter import CandidateFilter
from components.index_builder.catalogue_files import CatalogueFiles
from components.index_builder.lookup_files import LineIndex, read_lines
from components.index_builder.restricted_search import restricted_search
from components.index_builder.search_index import SearchIndex
from models.features.spec import ALLOW_PREFIX, EXCLUDE_KEY, FeatureSpec
from models.input.raw_inputs import candidate_inputs, query_inputs, same_batch
from models.towers.export import EMBED_CANDIDATE, EMBED_QUERY, EMBEDDING_KEY
from models.towers.saved_towers import SavedTowers

_Signature = Callable[..., dict[str, tf.Tensor]]

SERVING_DEFAULT = "serving_default"
RECOMMEND_EXCLUDING = "recommend_excluding"
SIMILAR_CANDIDATES = "similar_candidates"
CANDIDATE_IDS_KEY = "candidate_ids"
SCORES_KEY = "scores"


class RetrievalModel(tf.Module):
    """Answers over an index with the signatures that every backend shares.

    An answer has `min(k, num_candidates)` columns. Where fewer candidates are left, after
    exclusion and filters, the last columns hold "" and the least float32.

    Args:
        towers: As exported by the trainer; saved along.
        index: Over the catalogue's vectors.
        catalogue: Ids and filtered features in the index's order; its files become assets.
        spec: Ids and features.
        k: Candidates in an answer.
    """

    def __init__(
        self,
        towers: SavedTowers,
        index: SearchIndex,
        catalogue: CatalogueFiles,
        spec: FeatureSpec,
        k: int,
    ) -> None:
        super().__init__()
        self._towers = towers.module
        self._index = index
        self._index_of = LineIndex(catalogue.ids_file, missing=-1)
        self._ids = tf.Variable(
            read_lines(catalogue.ids_file), dtype=tf.string, trainable=False, name="ids"
        )
        self._filters = {name: CandidateFilter(file) for name, file in catalogue.filters.items()}
        self._spec = spec
        self._k = min(k, catalogue.num_candidates)

    def recommend(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the best candidates for raw queries (`models.input.raw_inputs.query_inputs`)."""
        queries = self._towers.signatures[EMBED_QUERY](**inputs)[EMBEDDING_KEY]
        indices, scores = self._index.search(queries, tf.constant(self._k))
        return self._answer(tf.gather(self._ids, indices), scores)

    def recommend_excluding(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """As `recommend`, but without some candidates.

        Args:
            inputs: Beside the queries `exclude` `[batch, m]`, ids, and `allow_FEATURE`
                `[batch, m]`, values, for each filter; both padded with "".
        """
        rows = same_batch(inputs)
        exclude = rows.pop(EXCLUDE_KEY)
        allowed = self._allowed(rows)
        queries = self._towers.signatures[EMBED_QUERY](**rows)[EMBEDDING_KEY]
        return self._search_without(queries, self._index_of.lookup(exclude), allowed)

    def similar(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the candidates nearest to candidates `[batch]`, without themselves.

        A candidate that the index does not hold has an empty answer. `allow_FEATURE` filters as in
        `recommend_excluding`.
        """
        rows = same_batch(inputs)
        allowed = self._allowed(rows)
        own = self._index_of.lookup(rows[self._spec.candidate_id])[:, None]
        vectors = self._index.vectors_at(tf.maximum(own[:, 0], 0))
        answer = self._search_without(vectors, own, allowed)
        known = own >= 0
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
        allow = {
            name: tf.TensorSpec([None, None], tf.string, name)
            for name in map(allow_key, self._filters)
        }
        towers = self._towers.signatures
        traced = {
            SERVING_DEFAULT: (self.recommend, query),
            RECOMMEND_EXCLUDING: (self.recommend_excluding, {**query, **exclude, **allow}),
            SIMILAR_CANDIDATES: (self.similar, {**candidate_id, **allow}),
            EMBED_QUERY: (lambda **inputs: towers[EMBED_QUERY](**inputs), query),
            EMBED_CANDIDATE: (lambda **inputs: towers[EMBED_CANDIDATE](**inputs), candidate),
        }
        return {
            name: tf.function(
                _with_ranks_checked(function, tensors), autograph=False
            ).get_concrete_function(**tensors)
            for name, (function, tensors) in traced.items()
        }

    def _allowed(self, rows: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Takes the filters' inputs out of a request."""
        return {
            name: candidate_filter.allowed(rows.pop(allow_key(name)))
            for name, candidate_filter in self._filters.items()
        }

    def _search_without(
        self, queries: tf.Tensor, exclude: tf.Tensor, allowed: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        conditions = [(self._filters[name], values) for name, values in allowed.items()]
        found = restricted_search(self._index, queries, self._k, exclude, conditions)
        return self._answer(
            tf.where(found.is_candidate, tf.gather(self._ids, found.indices), ""), found.scores
        )

    def _answer(self, ids: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = [None, self._k]
        return {
            CANDIDATE_IDS_KEY: tf.ensure_shape(ids, shape),
            SCORES_KEY: tf.ensure_shape(scores, shape),
        }


def _with_ranks_checked(function: _Signature, tensors: Mapping[str, tf.TensorSpec]) -> _Signature:
    """Refuses tensors of another rank than declared.

    What is fed to a graph is not held against the shapes it was traced with: a history of rank 1
    would be a history of one event for each of many queries.
    """

    def checked(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return function(
            **{
                name: tf.ensure_shape(values, tensors[name].shape)
                for name, values in inputs.items()
            }
        )

    return checked


def allow_key(feature: str) -> str:
    """Returns the input that filters by a candidate feature."""
    return ALLOW_PREFIX + feature
