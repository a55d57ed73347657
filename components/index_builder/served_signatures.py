"""The served signatures, which map raw queries to candidate IDs and scores."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from components.index_builder.catalogue_files import CatalogueFiles, LineIndex, read_lines
from components.index_builder.known_histories import KnownHistories, StoredHistories
from components.index_builder.restricted_search import (
    AvailabilityFilter,
    CandidateFilter,
    Condition,
    restricted_search,
)
from components.index_builder.search_index import SearchIndex
from models.features.spec import (
    ALLOW_PREFIX,
    EXCLUDE_KEY,
    EXCLUDE_SEEN_KEY,
    HISTORY_KEY,
    TIME_KEY,
    FeatureSpec,
)
from models.input.raw_inputs import candidate_inputs, query_inputs, same_batch
from models.ranking.stage import NO_SCORE
from models.towers.export import EMBED_CANDIDATE, EMBED_QUERY, EMBEDDING_KEY
from models.towers.saved_towers import SavedTowers

_Signature = Callable[..., dict[str, tf.Tensor]]

SERVING_DEFAULT = "serving_default"
RECOMMEND_EXCLUDING = "recommend_excluding"
SIMILAR_CANDIDATES = "similar_candidates"
CANDIDATE_IDS_KEY = "candidate_ids"
SCORES_KEY = "scores"


class RetrievalModel(tf.Module):
    """The towers, an index and the catalogue, with the same signatures for all backends.

    A response has `min(k, num_candidates)` columns. If exclusions and filters leave fewer
    candidates, the last columns contain "" and the lowest finite float32. Each field of the
    catalogue is a further output, with "" or NaN there. If candidates have times of availability,
    only those that are available at the input `time` are returned, by default now. The files of the
    catalogue become assets of the SavedModel.
    """

    def __init__(
        self,
        towers: SavedTowers,
        index: SearchIndex,
        catalogue: CatalogueFiles,
        spec: FeatureSpec,
        k: int,
        histories: StoredHistories | None = None,
    ) -> None:
        super().__init__()
        self._towers, self._index, self._spec = towers.module, index, spec
        self._index_of = LineIndex(catalogue.ids_file, missing=-1)
        self._ids = tf.Variable(read_lines(catalogue.ids_file), False, dtype=tf.string)
        self._fields = {name: tf.Variable(of, False) for name, of in catalogue.fields.items()}
        self._filters = {name: CandidateFilter(file) for name, file in catalogue.filters.items()}
        self._available: AvailabilityFilter | None = None
        if catalogue.availability is not None:
            self._available = AvailabilityFilter(catalogue.availability)
        self._k = min(k, catalogue.num_candidates)
        self._histories: KnownHistories | None = None
        if histories is not None:
            self._histories = KnownHistories(histories, self._ids, spec.query_id)

    def recommend(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the best candidates for raw queries (`models.input.raw_inputs.query_inputs`)."""
        if self._available is not None:
            return self._restricted(same_batch(inputs))
        queries = self._towers.signatures[EMBED_QUERY](**inputs)[EMBEDDING_KEY]
        indices, scores = self._index.search(queries, tf.constant(self._k))
        return self._answer(indices, scores)

    def recommend_excluding(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the best candidates that are not excluded and pass the filters.

        The inputs are raw queries; candidate IDs to exclude, `exclude` `[batch, m]`; whether to
        exclude the history, `exclude_seen` `[batch]`; and for each filter the allowed values,
        `allow_FEATURE` `[batch, m]`. Lists are padded with "".
        """
        return self._restricted(same_batch(inputs))

    def _restricted(self, rows: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the best candidates for the inputs of `recommend_excluding`, or without these."""
        excluded = self._exclusions(rows) if EXCLUDE_KEY in rows else None
        conditions = self._conditions(rows)
        queries = self._towers.signatures[EMBED_QUERY](**rows)[EMBEDDING_KEY]
        if excluded is None:
            excluded = tf.zeros([tf.shape(queries)[0], 0], tf.int32)
        return self._answer(*restricted_search(self._index, queries, self._k, excluded, conditions))

    def similar(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return, for each given candidate `[batch]`, the other candidates that are most similar.

        For an unknown candidate, all returned IDs are "". `allow_FEATURE` filters as in
        `recommend_excluding`.
        """
        rows = same_batch(inputs)
        conditions = self._conditions(rows)
        own = self._index_of.lookup(rows[self._spec.candidate_id])[:, None]
        vectors = self._index.vectors_at(tf.maximum(own[:, 0], 0))
        indices, scores = restricted_search(self._index, vectors, self._k, own, conditions)
        return self._answer(indices, tf.where(own >= 0, scores, NO_SCORE))

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Trace all signatures and return them by name."""
        return {
            name: tf.function(
                _with_ranks_checked(self._with_histories(name, function, tensors), tensors),
                autograph=False,
            ).get_concrete_function(**tensors)
            for name, (function, tensors) in self._functions().items()
        }

    def _with_histories(
        self, name: str, function: _Signature, tensors: Mapping[str, tf.TensorSpec]
    ) -> _Signature:
        """Give a signature the stored histories.

        `embed_query` does not get them: the evaluation of a served version embeds queries as they
        were before the held-out events, which a stored history contains.
        """
        histories = self._histories
        if histories is None or HISTORY_KEY not in tensors or name == EMBED_QUERY:
            return function
        return lambda **inputs: function(**histories.fill(same_batch(inputs)))

    def _functions(self) -> dict[str, tuple[_Signature, dict[str, tf.TensorSpec]]]:
        """Return the functions and inputs of all signatures by name."""
        query = query_inputs(self._spec)
        candidate = candidate_inputs(self._spec)
        candidate_id = {self._spec.candidate_id: candidate[self._spec.candidate_id]}
        exclude = {
            EXCLUDE_KEY: tf.TensorSpec([None, None], tf.string, EXCLUDE_KEY),
            EXCLUDE_SEEN_KEY: tf.TensorSpec([None], tf.bool, EXCLUDE_SEEN_KEY),
        }
        allow = {
            name: tf.TensorSpec([None, None], tf.string, name)
            for name in map(allow_key, self._filters)
        }
        time = {name: tensor for name, tensor in query.items() if name == TIME_KEY}
        towers = self._towers.signatures
        return {
            SERVING_DEFAULT: (self.recommend, query),
            RECOMMEND_EXCLUDING: (self.recommend_excluding, {**query, **exclude, **allow}),
            SIMILAR_CANDIDATES: (self.similar, {**candidate_id, **allow, **time}),
            EMBED_QUERY: (lambda **inputs: towers[EMBED_QUERY](**_timed(inputs)), query),
            EMBED_CANDIDATE: (lambda **inputs: towers[EMBED_CANDIDATE](**inputs), candidate),
        }

    def _exclusions(self, rows: dict[str, tf.Tensor]) -> tf.Tensor:
        """Remove the inputs that exclude from `rows`; return the excluded candidates' indices."""
        exclude, excludes_seen = rows.pop(EXCLUDE_KEY), rows.pop(EXCLUDE_SEEN_KEY)
        history = rows[HISTORY_KEY]
        # Each column takes time in the search.
        width = tf.where(tf.reduce_any(excludes_seen), tf.shape(history)[1], 0)
        seen = tf.where(excludes_seen[:, None], history[:, :width], "")
        return self._index_of.lookup(tf.concat([exclude, seen], axis=1))

    def _conditions(self, rows: dict[str, tf.Tensor]) -> list[Condition]:
        """Remove the filters' inputs from `rows`; return the filters with what they allow.

        A time that is not given becomes the present one.
        """
        conditions: list[Condition] = [
            (candidate_filter, candidate_filter.allowed(rows.pop(allow_key(name))))
            for name, candidate_filter in self._filters.items()
            if allow_key(name) in rows
        ]
        if self._available is not None:
            rows |= _timed(rows)
            conditions.append((self._available, rows[TIME_KEY]))
        return conditions

    def _answer(self, indices: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        is_found = scores > NO_SCORE
        answer = {SCORES_KEY: scores}
        for name, values in {CANDIDATE_IDS_KEY: self._ids, **self._fields}.items():
            missing = "" if values.dtype == tf.string else float("nan")
            answer[name] = tf.where(is_found, tf.gather(values, indices), missing)
        return {name: tf.ensure_shape(of, [None, self._k]) for name, of in answer.items()}


def _timed(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return inputs in which a time of 0 or less, if it is an input, is the present one."""
    if TIME_KEY not in inputs:
        return dict(inputs)
    times = inputs[TIME_KEY]
    # Only if it is needed: TensorFlow cannot tell the time where it must be deterministic.
    now = tf.cond(
        tf.reduce_any(times <= 0),
        lambda: tf.cast(tf.timestamp(), tf.int64),
        lambda: tf.constant(0, tf.int64),
    )
    return {**inputs, TIME_KEY: tf.where(times > 0, times, now)}


def _with_ranks_checked(function: _Signature, tensors: Mapping[str, tf.TensorSpec]) -> _Signature:
    """Make a signature reject tensors whose rank differs from the declared one.

    TensorFlow does not check the shapes of tensors that are fed to a graph: a history of rank 1
    would be read as many histories of one event.
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
    """Return the name of the signature input that filters by a candidate feature."""
    return ALLOW_PREFIX + feature
