"""The export of the trained towers: a SavedModel whose signatures take raw features."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras

from models.config import ModelConfig
from models.features.spec import HISTORY_KEY, FeatureSpec
from models.input.raw_inputs import candidate_inputs, query_inputs, same_batch, to_sparse
from models.input.transformed_features import dense_features, pad_indices
from models.towers.candidate_and_query import CandidateTower, QueryTower

EMBED_QUERY = "embed_query"
EMBED_CANDIDATE = "embed_candidate"
EMBEDDING_KEY = "embedding"
# In a folder of the SavedModel that TensorFlow Serving ignores.
MODEL_CONFIG_FILE = os.path.join("assets.extra", "model_config.json")
# Attribute of the exported module that holds the weights by name.
WEIGHTS_ATTRIBUTE = "weights"
# Not "/" or ".", because checkpoints escape them.
_NAME_SEPARATOR = ":"


class ServedTowers(tf.Module):
    """Transform's graph followed by the towers, so that serving computes the same as training."""

    def __init__(
        self,
        query_tower: QueryTower,
        candidate_tower: CandidateTower,
        config: ModelConfig,
        spec: FeatureSpec,
        transform: tft.TFTransformOutput,
    ) -> None:
        super().__init__()
        self._spec = spec
        self._config = config
        # Keras layers must not be attributes: tf.saved_model.save would trace their own calls too,
        # which takes 15 s. Only their variables and Transform's tables and files must be saved.
        transform_layer = transform.transform_features_layer()
        self._query_tower: Callable[[], QueryTower] = lambda: query_tower
        self._candidate_tower: Callable[[], CandidateTower] = lambda: candidate_tower
        self._transform: Callable[[Any], Any] = lambda raw: transform_layer(raw)
        # Warm starts read the weights by these names.
        setattr(self, WEIGHTS_ATTRIBUTE, named_weights([candidate_tower, query_tower]))
        self._transform_resources = transform_layer._saved_model_loader_tracked_dict

    @tf.autograph.experimental.do_not_convert
    def embed_query(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embed raw queries (`models.input.raw_inputs.query_inputs`) to `[batch, dimension]`."""
        spec, tower = self._spec, self._query_tower()
        raw = {name: to_sparse(values) for name, values in same_batch(inputs).items()}
        # A history consists of candidate IDs and goes through the candidate vocabulary.
        raw[spec.candidate_id] = raw.pop(HISTORY_KEY)
        transformed = self._transform(raw)
        encoded: tf.Tensor | float = 0.0
        if self._config.encodes_history:
            events = pad_indices(transformed[spec.candidate_id])
            encoded = tower.encode(events, self._config.max_history)
        ids = _first(transformed[spec.query_id], tower.oov)
        features = dense_features(transformed, spec.query_features)
        return {EMBEDDING_KEY: tower(ids, features, encoded)}

    @tf.autograph.experimental.do_not_convert
    def embed_candidate(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embed raw candidates (`raw_inputs.candidate_inputs`) to `[batch, dimension]`."""
        spec, tower = self._spec, self._candidate_tower()
        transformed = self._transform(
            {name: to_sparse(values) for name, values in same_batch(inputs).items()}
        )
        ids = _first(transformed[spec.candidate_id], tower.oov)
        features = dense_features(transformed, spec.candidate_features)
        return {EMBEDDING_KEY: tower(ids, features)}


def export_towers(
    query_tower: QueryTower,
    candidate_tower: CandidateTower,
    config: ModelConfig,
    spec: FeatureSpec,
    transform: tft.TFTransformOutput,
    directory: str,
) -> None:
    """Write the SavedModel with the signatures `embed_query` and `embed_candidate`."""
    towers = ServedTowers(query_tower, candidate_tower, config, spec, transform)
    signatures = {
        EMBED_QUERY: tf.function(towers.embed_query, autograph=False).get_concrete_function(
            **query_inputs(spec)
        ),
        EMBED_CANDIDATE: tf.function(towers.embed_candidate, autograph=False).get_concrete_function(
            **candidate_inputs(spec)
        ),
    }
    tf.saved_model.save(towers, directory, signatures=signatures)
    path = os.path.join(directory, MODEL_CONFIG_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(config.model_dump_json())


def named_weights(towers: Iterable[tf_keras.layers.Layer]) -> dict[str, tf.Variable]:
    """Return the variables by stable names, such as `candidate_tower:ids:embeddings`.

    Keras names contain counters of the layers that the process has created, so they change between
    runs. Here, a name is the path of attributes from the tower to the variable, without leading
    underscores. Exported models carry these names: renaming an attribute of a tower breaks warm
    starts from older models. A variable that both towers use is named after the first tower.
    """
    weights: dict[str, tf.Variable] = {}
    seen: set[int] = set()
    for tower in towers:
        view = tf.train.TrackableView(tower)
        for path, variable in _variables(view, tower, (tower.name,), seen):
            weights[_NAME_SEPARATOR.join(part.lstrip("_") for part in path)] = variable
    return weights


def _variables(
    view: tf.train.TrackableView, node: object, path: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], tf.Variable]]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, tf.Variable):
        yield path, node
        return
    for name, child in view.children(node).items():
        yield from _variables(view, child, (*path, name), seen)


def _first(indices: tf.SparseTensor, missing: int) -> tf.Tensor:
    """Return the first index of each row, `[batch]`, or `missing` for empty rows."""
    padded = tf.pad(pad_indices(indices), [[0, 0], [0, 1]], constant_values=-1)[:, 0]
    return tf.where(padded >= 0, padded, missing)
