"""The fitted towers as a SavedModel that takes raw features."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from models.features.dense_features import dense_features, pad_indices
from models.features.spec import HISTORY_KEY, FeatureSpec
from models.input.raw_inputs import candidate_inputs, query_inputs, same_batch, to_sparse
from models.towers.named_weights import named_weights
from models.towers.towers import CandidateTower, QueryTower
from models.towers.two_tower import TwoTowerModel
from models.training.warm_start import write_model_config

EMBED_QUERY = "embed_query"
EMBED_CANDIDATE = "embed_candidate"
EMBEDDING_KEY = "embedding"


class RawTowers(tf.Module):
    """The towers behind Transform's own graph, so that serving cannot drift from training."""

    def __init__(
        self, model: TwoTowerModel, spec: FeatureSpec, transform: tft.TFTransformOutput
    ) -> None:
        super().__init__()
        self._spec = spec
        self._max_history = model.max_history
        self._encodes_history = model.encodes_history
        # Behind functions: a Keras layer that is an attribute would have its own call traced and
        # saved along, 15 s of AutoGraph that nobody asks for. What must be saved of them are
        # variables, and the tables and files of Transform's layer.
        transform_layer = transform.transform_features_layer()
        self._towers: Callable[[], tuple[QueryTower, CandidateTower]] = lambda: (
            model.query_tower,
            model.candidate_tower,
        )
        self._apply_transform: Callable[[Any], Any] = lambda raw: transform_layer(raw)
        # By name: a later fit can go on from them (`models.training.warm_start`).
        self.weights = named_weights([model.candidate_tower, model.query_tower])
        self._transform_resources = transform_layer._saved_model_loader_tracked_dict

    @tf.autograph.experimental.do_not_convert
    def embed_query(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds raw queries (`models.input.raw_inputs.query_inputs`) to `[batch, dimension]`."""
        spec = self._spec
        query_tower, _ = self._towers()
        rows = same_batch(inputs)
        raw = {name: to_sparse(values) for name, values in rows.items()}
        history = raw.pop(HISTORY_KEY)
        # A history is candidate ids: the same vocabulary, under the same key.
        transformed = self._transform({**raw, spec.candidate_id: history})
        encoded: tf.Tensor | float = 0.0
        if self._encodes_history:
            events = pad_indices(transformed[spec.candidate_id])
            encoded = query_tower.encode(events, self._max_history)
        ids = _first(transformed[spec.query_id], query_tower.oov)
        features = dense_features(transformed, spec.query_features)
        return {EMBEDDING_KEY: query_tower(ids, features, encoded)}

    @tf.autograph.experimental.do_not_convert
    def embed_candidate(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds raw candidates (`raw_inputs.candidate_inputs`) to `[batch, dimension]`."""
        spec = self._spec
        _, candidate_tower = self._towers()
        raw = {name: to_sparse(values) for name, values in same_batch(inputs).items()}
        transformed = self._transform(raw)
        ids = _first(transformed[spec.candidate_id], candidate_tower.oov)
        features = dense_features(transformed, spec.candidate_features)
        return {EMBEDDING_KEY: candidate_tower(ids, features)}

    def _transform(self, raw: Mapping[str, tf.SparseTensor]) -> Mapping[str, tf.SparseTensor]:
        transformed: Mapping[str, tf.SparseTensor] = self._apply_transform(dict(raw))
        return transformed


def export_towers(
    model: TwoTowerModel, spec: FeatureSpec, transform: tft.TFTransformOutput, directory: str
) -> None:
    """Writes the SavedModel with the signatures `embed_query` and `embed_candidate`."""
    towers = RawTowers(model, spec, transform)
    signatures = {
        EMBED_QUERY: tf.function(towers.embed_query, autograph=False).get_concrete_function(
            **query_inputs(spec)
        ),
        EMBED_CANDIDATE: tf.function(towers.embed_candidate, autograph=False).get_concrete_function(
            **candidate_inputs(spec)
        ),
    }
    tf.saved_model.save(towers, directory, signatures=signatures)
    write_model_config(model.config, directory)


def _first(indices: tf.SparseTensor, missing: int) -> tf.Tensor:
    """Returns each row's first index `[batch]`, or `missing` where a row has none."""
    padded = tf.pad(pad_indices(indices), [[0, 0], [0, 1]], constant_values=-1)[:, 0]
    return tf.where(padded >= 0, padded, missing)
