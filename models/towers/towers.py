"""The two towers."""

from collections.abc import Mapping, Sequence

import tensorflow as tf
import tf_keras

from models.features.feature_encoder import FeatureEncoder, keep_mask
from models.features.sizes import FeatureSizes
from models.features.spec import FeatureSpec
from models.towers.history.choice import make_history_encoder
from models.training.config import ModelConfig

_EMBEDDING_STDDEV = 0.05


class CandidateTower(tf_keras.layers.Layer):
    """Candidates to vectors: id embedding plus features, then dense layers.

    With `candidate_bias` the last coordinate is the bias, which the query tower meets with a one,
    so that a plain dot product scores and any index serves.
    """

    def __init__(
        self, spec: FeatureSpec, sizes: FeatureSizes, config: ModelConfig, dropout: float
    ) -> None:
        super().__init__(name="candidate_tower")
        self._config = config
        self._dropout = dropout
        self.features = FeatureEncoder(
            spec.candidate_features, sizes.features, config.dimension, dropout
        )
        self.ids = _embedding(sizes.candidates, config.dimension, "candidate_id")
        self._biases = tf_keras.layers.Embedding(
            sizes.candidates, 1, embeddings_initializer="zeros", name="candidate_bias"
        )
        self._layers = _hidden_layers(config.candidate_hidden_layers, config.dimension)
        self.oov = sizes.candidates - 1

    def call(
        self, ids: tf.Tensor, features: Mapping[str, tf.Tensor], seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Embeds candidates.

        Args:
            ids: `[batch]` int32 indices; the out-of-vocabulary index adds no vector of its own.
            features: Dense candidate features, `[batch, n]` each.
            seed: `[2]` int32, in training only.

        Returns:
            `[batch, output_dimension]` float32.
        """
        known = tf.cast(ids != self.oov, tf.float32)[:, None]
        vectors = self.features(features, seed=seed)
        if self._config.candidate_id_embedding:
            id_vectors = self.ids(ids) * known
            if seed is not None and self._has_features:
                # An item that nobody has seen yet must get along with its features alone.
                id_vectors *= keep_mask(tf.shape(ids), self._dropout, seed - 1)[:, None]
            vectors += id_vectors
        vectors = _through(self._layers, vectors)
        if self._config.similarity == "cosine":
            return tf.math.l2_normalize(vectors, axis=-1)
        if self._config.candidate_bias:
            return tf.concat([vectors, self._biases(ids) * known], axis=-1)
        return vectors

    @property
    def _has_features(self) -> bool:
        return self.features.has_features


class QueryTower(tf_keras.layers.Layer):
    """Queries to vectors: id embedding, features and history, then dense layers.

    Events are looked up in a table of their own, or in the one given as `candidate_ids`.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        sizes: FeatureSizes,
        config: ModelConfig,
        dropout: float,
        candidate_ids: tf_keras.layers.Embedding | None = None,
    ) -> None:
        super().__init__(name="query_tower")
        self._config = config
        self._dropout = dropout
        self._features = FeatureEncoder(
            spec.query_features,
            sizes.features,
            config.dimension,
            dropout,
            config.query_feature_scale,
        )
        self._ids = _embedding(sizes.queries, config.dimension, "query_id")
        self._events = (
            _embedding(sizes.candidates, config.dimension, "history")
            if candidate_ids is None
            else candidate_ids
        )
        self.history = make_history_encoder(config)
        self._layers = _hidden_layers(config.query_hidden_layers, config.dimension)
        # What a query without history and features is asked by: it finds what most look for. By dot
        # product the candidates' biases do that. Added to every query it cost sessions .012 of
        # recall@20.
        self._start = (
            self.add_weight(
                name="start",
                shape=[config.dimension],
                initializer=tf_keras.initializers.RandomNormal(stddev=_EMBEDDING_STDDEV),
            )
            if config.similarity == "cosine" or not config.candidate_bias
            else None
        )
        self.oov = sizes.queries - 1
        self._oov_candidate = sizes.candidates - 1

    @property
    def has_start(self) -> bool:
        """Whether a query of which nothing is known has a vector."""
        return self._start is not None

    def known(self, history: tf.Tensor) -> tf.Tensor:
        """Returns which of the candidate indices `[batch, events]` the encoder can look up.

        Padding and candidates that training never saw are not among them.
        """
        return (history >= 0) & (history != self._oov_candidate)

    def encode(self, history: tf.Tensor, newest: int | None = None) -> tf.Tensor:
        """Encodes candidate indices `[batch, events]`, oldest first, to `[batch, dimension]`.

        Args:
            history: Padded with -1 anywhere.
            newest: How many known events the encoder sees at most; all if absent.
        """
        closed = tf.ragged.boolean_mask(history, self.known(history))
        return self.history.last(self.vectors(closed if newest is None else closed[:, -newest:]))

    def vectors(self, events: tf.RaggedTensor) -> tf.RaggedTensor:
        """Looks up known candidate indices: `[batch, (events), dimension]`."""
        return events.with_values(self._events(events.values))

    def call(
        self,
        ids: tf.Tensor,
        features: Mapping[str, tf.Tensor],
        history: tf.Tensor,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Embeds queries.

        Args:
            ids: `[batch]` int32 indices; the out-of-vocabulary index adds no vector of its own.
            features: Dense query features, `[batch, n]` each.
            history: `[batch, dimension]` encoded, or 0 without a history encoder.
            seed: `[2]` int32, in training only.

        Returns:
            `[batch, output_dimension]` float32.
        """
        vectors = history + self._features(features, seed=seed)
        if self._config.query_id_embedding:
            known = tf.cast(ids != self.oov, tf.float32)[:, None]
            id_vectors = self._ids(ids) * known
            if seed is not None and self._has_more_than_ids:
                # A query that nobody has seen yet must get along with the rest.
                id_vectors *= keep_mask(tf.shape(ids), self._dropout, seed - 1)[:, None]
            vectors += id_vectors
        if self._start is not None:
            nothing = tf.reduce_all(tf.equal(vectors, 0.0), axis=-1, keepdims=True)
            vectors = tf.where(nothing, self._start, vectors)
        vectors = _through(self._layers, vectors)
        if self._config.similarity == "cosine":
            # The temperature belongs to the query: candidates keep unit length for the index.
            return tf.math.l2_normalize(vectors, axis=-1) / self._config.temperature
        if self._config.candidate_bias:
            return tf.concat([vectors, tf.ones_like(vectors[:, :1])], axis=-1)
        return vectors

    @property
    def _has_more_than_ids(self) -> bool:
        return self._features.has_features or self._config.history_encoder != "none"


def _embedding(size: int, dimension: int, name: str) -> tf_keras.layers.Embedding:
    return tf_keras.layers.Embedding(
        size,
        dimension,
        embeddings_initializer=tf_keras.initializers.RandomNormal(stddev=_EMBEDDING_STDDEV),
        name=name,
    )


def _hidden_layers(widths: Sequence[int], dimension: int) -> list[tf_keras.layers.Layer]:
    if not widths:
        return []
    hidden = [tf_keras.layers.Dense(width, activation="relu") for width in widths]
    return [*hidden, tf_keras.layers.Dense(dimension)]


def _through(layers: Sequence[tf_keras.layers.Layer], vectors: tf.Tensor) -> tf.Tensor:
    for layer in layers:
        vectors = layer(vectors)
    return vectors
