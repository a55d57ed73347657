"""The candidate tower and the query tower."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from models.config import ModelConfig
from models.features.spec import FeatureSpec
from models.features.vocabularies import FeatureSizes
from models.towers.candidate_age import CandidateAge
from models.towers.feature_encoder import FeatureEncoder, keep_mask
from models.towers.history.base import HistoryEncoder
from models.towers.history.mean_and_recency import MeanEncoder, RecencyEncoder
from models.towers.history.recency_attention import RecencyAttentionEncoder

EMBEDDING_STDDEV = 0.05


class CandidateTower(tf_keras.layers.Layer):
    """Tower that embeds candidates: ID embedding plus encoded features, then dense layers.

    With `candidate_bias`, the last coordinate of a candidate is its bias and that of a query is 1.
    The score is then a plain dot product, which any index supports. `biases` `[num_candidates]` are
    their initial values, by default 0.

    `known` `[sizes.candidates]` marks the candidates whose IDs were trained; the others have no ID
    embedding and no bias. Default: all but the out-of-vocabulary one. With `age`, its coordinates
    follow those of all else.

    Example:
        tower = CandidateTower(spec, sizes, ModelConfig(dimension=64), dropout=0.1)
        vectors = tower(tf.constant([0, 1]), {"genre": tf.constant([[3], [7]])})  # [2, 65]
    """

    def __init__(
        self,
        spec: FeatureSpec,
        sizes: FeatureSizes,
        config: ModelConfig,
        dropout: float,
        known: npt.NDArray[np.bool_] | None = None,
        age: CandidateAge | None = None,
        biases: npt.NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__(name="candidate_tower")
        self._age = age
        self._config = config
        self._dropout = dropout
        self.features = FeatureEncoder(
            spec.candidate_features, sizes.features, config.dimension, dropout
        )
        self.ids = _embedding(sizes.candidates, config.dimension, "candidate_id")
        initial = "zeros"
        if biases is not None:
            initial = tf_keras.initializers.Constant(np.append(biases, 0.0)[:, None])
        self._biases = tf_keras.layers.Embedding(
            sizes.candidates, 1, embeddings_initializer=initial, name="candidate_bias"
        )
        self._layers = _dense_layers(config.candidate_hidden_layers, config.dimension)
        self.oov = sizes.candidates - 1
        self._is_known = _known_or_all(known, sizes)

    def call(
        self,
        ids: tf.Tensor,
        features: Mapping[str, tf.Tensor],
        seed: tf.Tensor | None = None,
        starts: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Embed candidates, given as indices `[batch]` and features `[batch, n]`.

        `starts` are the times from which they are available `[batch]`, which only an `age` needs.
        The result is `[batch, output_dimension]`. `seed`, `[2]` int32, switches on dropout.
        """
        known = tf.cast(tf.gather(self._is_known, ids), tf.float32)[:, None]
        vectors = self.features(features, seed=seed)
        if self._config.candidate_id_embedding:
            id_vectors = self.ids(ids) * known
            if seed is not None and self.features.has_features:
                # ID dropout: cold candidates are represented by their features only.
                id_vectors *= keep_mask(tf.shape(ids), self._dropout, seed - 1)[:, None]
            vectors += id_vectors
        for layer in self._layers:
            vectors = layer(vectors)
        scale = 1.0
        if self._config.similarity == "cosine":
            # As queries are divided by the temperature, the sum of all is the bias.
            vectors, scale = tf.math.l2_normalize(vectors, axis=-1), self._config.temperature
        if self._config.has_candidate_bias:
            vectors = tf.concat([vectors, self._biases(ids) * known * scale], axis=-1)
        if self._age is not None:
            vectors = tf.concat([vectors, self._age.of_candidates(starts)], axis=-1)
        return vectors


class QueryTower(tf_keras.layers.Layer):
    """Tower that embeds queries: ID embedding plus encoded features and history, then dense layers.

    The history's events are embedded as candidates are: an ID embedding plus the features in
    `catalogue`, which has those of each candidate by index (`dense_features` or
    `FeatureEncoder.shares`). The tables are those of `candidates`, or by default separate ones.
    Events are ignored if nothing is known of them: neither a `known` ID (`CandidateTower`) nor a
    feature.

    Example:
        tower = QueryTower(spec, sizes, ModelConfig(dimension=64), dropout=0.1)
        history = tower.encode(tf.constant([[4, 8, -1]]))
        vectors = tower(tf.constant([2]), {"age": tf.constant([[0.3]])}, history)  # [1, 65]
    """

    def __init__(
        self,
        spec: FeatureSpec,
        sizes: FeatureSizes,
        config: ModelConfig,
        dropout: float,
        candidates: CandidateTower | None = None,
        catalogue: Mapping[str, tf.Tensor | tf.SparseTensor] | None = None,
        known: npt.NDArray[np.bool_] | None = None,
        age: CandidateAge | None = None,
    ) -> None:
        super().__init__(name="query_tower")
        self.age = age
        self.spec, self.config = spec, config
        self._dropout = dropout
        scale = config.query_feature_scale
        self._features = FeatureEncoder(
            spec.request_features, sizes.features, config.dimension, dropout, scale
        )
        self._ids = _embedding(sizes.queries, config.dimension, "query_id")
        self._events = (
            candidates.ids
            if candidates
            else _embedding(sizes.candidates, config.dimension, "history")
        )
        uses_features = config.history_features and config.encodes_history
        self._catalogue = dict(catalogue or {}) if uses_features else {}
        self._event_features = (
            candidates.features
            if candidates
            else FeatureEncoder(
                {name: spec.candidate_features[name] for name in self._catalogue},
                sizes.features,
                config.dimension,
                dropout,
            )
        )
        self._has_types = bool(spec.columns.event_types) and config.encodes_history
        if self._has_types:
            # The vector of an event is scaled and shifted by its type.
            shape = [len(spec.columns.event_types), config.dimension]
            self._type_scales = self.add_weight("type_scales", shape, initializer="ones")
            self._type_shifts = self.add_weight("type_shifts", shape, initializer="zeros")
        self.history = make_history_encoder(config)
        self._layers = _dense_layers(config.query_hidden_layers, config.dimension)
        # Embedding of queries without history and features, which learns to retrieve the most
        # popular candidates. With candidate biases it is not needed, because the biases do that.
        # Adding it to every query instead reduced recall@20 on sessions by .012.
        self.start: tf.Variable | None = None
        if config.similarity == "cosine" or not config.has_candidate_bias:
            initializer = tf_keras.initializers.RandomNormal(stddev=EMBEDDING_STDDEV)
            self.start = self.add_weight("start", [config.dimension], initializer=initializer)
        self.oov = sizes.queries - 1
        self._num_candidates = sizes.candidates - 1
        self._has_id = self._is_known = _known_or_all(known, sizes)
        for values in self._catalogue.values():
            self._is_known |= tf.pad(_has_value(values), [[0, 1]])

    def known(self, history: tf.Tensor) -> tf.Tensor:
        """Return a mask of the known candidates in `history` `[batch, events]`, without padding."""
        return (history >= 0) & tf.gather(self._is_known, tf.maximum(history, 0))

    def encode(
        self,
        history: tf.Tensor,
        newest: int | None = None,
        types: tf.Tensor | None = None,
        table: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Encode the `newest` known events of `history` to `[batch, dimension]`.

        `history` is `[batch, events]` candidate indices, oldest first, with -1 for padding, and
        `types` the types of these events. `table` is a result of `event_table`, if it is already
        computed.
        """
        known = self.known(history)
        events = tf.ragged.boolean_mask(history, known)
        kinds = None if types is None else tf.ragged.boolean_mask(types, known)
        if newest is not None:
            events = events[:, -newest:]
            kinds = None if kinds is None else kinds[:, -newest:]
        vectors = self.vectors(events, kinds, table=table)
        return self.history.last(vectors, self.config.max_history)

    def vectors(
        self,
        events: tf.RaggedTensor,
        types: tf.RaggedTensor | None = None,
        seed: tf.Tensor | None = None,
        table: tf.Tensor | None = None,
    ) -> tf.RaggedTensor:
        """Return the embeddings of known candidate indices, `[batch, (events), dimension]`.

        `types` are indices of the events' types, negative if unknown. `seed`, `[2]` int32, switches
        on the dropout of IDs and features.
        """
        if table is not None:
            vectors = tf.gather(table, events.values)
        else:
            vectors = self._candidate_vectors(events.values, seed)
        if types is not None and self._has_types:
            known, index = types.values[:, None] >= 0, tf.maximum(types.values, 0)
            vectors *= tf.where(known, tf.gather(self._type_scales, index), 1.0)
            vectors += tf.where(known, tf.gather(self._type_shifts, index), 0.0)
        return events.with_values(vectors)

    def _candidate_vectors(self, indices: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
        if not self._catalogue:
            return self._events(indices)
        if any(isinstance(of, tf.SparseTensor) for of in self._catalogue.values()):
            # The features of the whole catalogue are one sparse product.
            candidates, positions = tf.range(self._num_candidates), indices
            features = self._catalogue
        else:
            # Each candidate is embedded once, because most are in many events.
            candidates, positions = tf.unique(indices)
            features = {name: tf.gather(of, candidates) for name, of in self._catalogue.items()}
        has_id = tf.cast(tf.gather(self._has_id, indices), tf.float32)
        vectors = self._events(indices) * has_id[:, None]
        if seed is not None:
            kept = keep_mask(tf.shape(candidates), self._dropout, seed - 1)
            vectors *= tf.gather(kept, positions)[:, None]
        return vectors + tf.gather(self._event_features(features, seed=seed), positions)

    def event_table(self) -> tf.Tensor | None:
        """Return the embedding of each known candidate in a history, `[num_candidates, dimension]`.

        None if events are embedded by ID only.
        """
        if not self._catalogue:
            return None
        return self._candidate_vectors(tf.range(self._num_candidates), None)

    def call(
        self,
        ids: tf.Tensor,
        features: Mapping[str, tf.Tensor],
        history: tf.Tensor,
        seed: tf.Tensor | None = None,
        times: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Embed queries, given as indices `[batch]`, features `[batch, n]` and encoded histories.

        The result is `[batch, output_dimension]`. `history` is `[batch, dimension]`, or 0 without a
        history encoder. `seed`, `[2]` int32, switches on dropout. The out-of-vocabulary index has
        no ID embedding. `times` are those of the queries `[batch]`, which only an `age` needs.
        """
        vectors = history + self._features(features, seed=seed)
        if self.config.query_id_embedding:
            known = tf.cast(ids != self.oov, tf.float32)[:, None]
            id_vectors = self._ids(ids) * known
            if seed is not None and (self._features.has_features or self.config.encodes_history):
                # ID dropout: new queries are represented by their history and features only.
                id_vectors *= keep_mask(tf.shape(ids), self._dropout, seed - 1)[:, None]
            vectors += id_vectors
        if self.start is not None:
            is_empty = tf.reduce_all(tf.equal(vectors, 0.0), axis=-1, keepdims=True)
            vectors = tf.where(is_empty, self.start, vectors)
        for layer in self._layers:
            vectors = layer(vectors)
        is_cosine = self.config.similarity == "cosine"
        if is_cosine:
            vectors = tf.math.l2_normalize(vectors, axis=-1)
        if self.config.has_candidate_bias:
            vectors = tf.concat([vectors, tf.ones_like(vectors[:, :1])], axis=-1)
        if is_cosine:
            # Not candidates, so that their similarity to each other is a cosine, plus little.
            vectors /= self.config.temperature
        if self.age is not None:
            vectors = tf.concat([vectors, self.age.of_queries(times)], axis=-1)
        return vectors


def make_history_encoder(config: ModelConfig) -> HistoryEncoder:
    """Return the configured history encoder; for `none`, one that is never called."""
    if config.history_encoder == "recency":
        return RecencyEncoder(config.dimension, config.recency_positions, config.recency_heads)
    if config.history_encoder == "recency_attention":
        return RecencyAttentionEncoder(
            config.dimension,
            config.recency_positions,
            config.recency_heads,
            config.attention_heads,
            config.attention_dropout,
        )
    return MeanEncoder(config.dimension)


def _has_value(values: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    """Return whether each candidate has a value of a feature, `[num_candidates]`."""
    if isinstance(values, tf.SparseTensor):
        rows, number = tf.cast(values.indices[:, 0], tf.int32), values.dense_shape[0]
        return tf.math.bincount(rows, minlength=tf.cast(number, tf.int32)) > 0
    is_present = values >= 0 if values.dtype.is_integer else tf.math.is_finite(values)
    return tf.reduce_any(is_present, axis=1)


def _known_or_all(known: npt.NDArray[np.bool_] | None, sizes: FeatureSizes) -> tf.Tensor:
    all_but_oov = np.arange(sizes.candidates) < sizes.candidates - 1
    return tf.constant(all_but_oov if known is None else known)


def _embedding(size: int, dimension: int, name: str) -> tf_keras.layers.Embedding:
    return tf_keras.layers.Embedding(
        size,
        dimension,
        embeddings_initializer=tf_keras.initializers.RandomNormal(stddev=EMBEDDING_STDDEV),
        name=name,
    )


def _dense_layers(widths: Sequence[int], dimension: int) -> list[tf_keras.layers.Layer]:
    if not widths:
        return []
    hidden = [tf_keras.layers.Dense(width, activation="relu") for width in widths]
    return [*hidden, tf_keras.layers.Dense(dimension)]
