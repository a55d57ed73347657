"""The export of the trained towers: a SavedModel whose signatures take raw features."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras

from models.features.spec import (
    AVAILABLE_FROM_KEY,
    HISTORY_KEY,
    HISTORY_TYPES_KEY,
    MISSING_INDEX,
    TIME_KEY,
    FeatureConfig,
    FeatureSpec,
)
from models.input.raw_inputs import candidate_inputs, query_inputs, same_batch, to_sparse
from models.input.transformed_features import dense_features, pad_indices, type_indices
from models.towers.candidate_and_query import CandidateTower, QueryTower

EMBED_QUERY = "embed_query"
EMBED_CANDIDATE = "embed_candidate"
# Only for a ranking stage.
TRANSFORM_QUERY = "transform_query"
TRANSFORM_CANDIDATE = "transform_candidate"
EMBEDDING_KEY = "embedding"
# In a folder of the SavedModel that TensorFlow Serving ignores.
MODEL_CONFIG_FILE = os.path.join("assets.extra", "model_config.json")
# Attribute of the exported module that holds the weights by name.
WEIGHTS_ATTRIBUTE = "weights"
# Not "/" or ".", because checkpoints escape them.
_NAME_SEPARATOR = ":"

# A function of raw inputs, and these inputs.
Signature: TypeAlias = tuple[Callable[..., dict[str, tf.Tensor]], Mapping[str, tf.TensorSpec]]


def export_towers(
    query_tower: QueryTower,
    candidate_tower: CandidateTower,
    transform: tft.TFTransformOutput,
    directory: str,
    *,
    ranked: bool = False,
) -> None:
    """Write the SavedModel with the signatures `embed_query` and `embed_candidate`.

    Both run Transform's graph and then a tower, so that serving computes the same as training.
    `embed_query` takes `models.input.raw_inputs.query_inputs`, and `embed_candidate` takes
    `candidate_inputs`; both return `[batch, dimension]`. With `ranked`, `transform_query` and
    `transform_candidate` take the same, except the history, and return what the towers read: the
    index of the ID `[batch, 1]`, -1 if it is missing, and `dense_features`.
    """
    spec, config = query_tower.spec, query_tower.config
    transform_layer = transform.transform_features_layer()
    module = tf.Module()
    table = query_tower.event_table() if config.encodes_history else None
    if table is not None:
        table = module.event_vectors = tf.Variable(table, trainable=False)

    @tf.autograph.experimental.do_not_convert
    def embed_query(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = same_batch(inputs)
        times = rows.pop(TIME_KEY, None)
        types = None
        if spec.columns.event_types:
            types = _aligned_types(rows.pop(HISTORY_TYPES_KEY), rows[HISTORY_KEY], spec)
        raw = {name: to_sparse(values) for name, values in rows.items()}
        # A history consists of candidate IDs and goes through the candidate vocabulary.
        raw[spec.candidate_id] = raw.pop(HISTORY_KEY)
        transformed = transform_layer(raw)
        encoded: tf.Tensor | float = 0.0
        if config.encodes_history:
            events = pad_indices(transformed[spec.candidate_id])
            encoded = query_tower.encode(events, config.max_history, types, table)
        ids = _first(transformed[spec.query_id], query_tower.oov)
        features = dense_features(transformed, spec.request_features)
        return {EMBEDDING_KEY: query_tower(ids, features, encoded, times=times)}

    @tf.autograph.experimental.do_not_convert
    def embed_candidate(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = same_batch(inputs)
        starts = rows.pop(AVAILABLE_FROM_KEY, None)
        transformed = transform_layer({name: to_sparse(values) for name, values in rows.items()})
        ids = _first(transformed[spec.candidate_id], candidate_tower.oov)
        features = dense_features(transformed, spec.candidate_features)
        return {EMBEDDING_KEY: candidate_tower(ids, features, starts=starts)}

    @tf.autograph.experimental.do_not_convert
    def transform_raw(
        id_name: str, features: Mapping[str, FeatureConfig], inputs: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        raw = {name: to_sparse(values) for name, values in same_batch(inputs).items()}
        transformed = transform_layer(raw)
        ids = _first(transformed[id_name], MISSING_INDEX)
        return {id_name: ids[:, None], **dense_features(transformed, features)}

    more: dict[str, Signature] = {}
    if ranked:
        query, candidate = query_inputs(spec), candidate_inputs(spec)
        query = {name: query[name] for name in (spec.query_id, *spec.query_features)}
        candidate = {
            name: candidate[name] for name in (spec.candidate_id, *spec.candidate_features)
        }
        more = {
            TRANSFORM_QUERY: (
                lambda **inputs: transform_raw(spec.query_id, spec.query_features, inputs),
                query,
            ),
            TRANSFORM_CANDIDATE: (
                lambda **inputs: transform_raw(spec.candidate_id, spec.candidate_features, inputs),
                candidate,
            ),
        }
    # Keras layers must not be attributes: tf.saved_model.save would trace their own calls too,
    # which takes 15 s. Only their variables and Transform's tables and files must be saved.
    # Warm starts read the weights by these names.
    setattr(module, WEIGHTS_ATTRIBUTE, named_weights([candidate_tower, query_tower]))
    module.transform_resources = transform_layer._saved_model_loader_tracked_dict
    save_towers(module, spec, embed_query, embed_candidate, directory, more)
    path = os.path.join(directory, MODEL_CONFIG_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(config.model_dump_json())


def save_towers(
    module: tf.Module,
    spec: FeatureSpec,
    embed_query: Callable[..., dict[str, tf.Tensor]],
    embed_candidate: Callable[..., dict[str, tf.Tensor]],
    directory: str,
    more: Mapping[str, Signature] | None = None,
) -> None:
    """Save a module with the signatures `embed_query`, `embed_candidate` and `more`."""
    functions: dict[str, Signature] = {
        EMBED_QUERY: (embed_query, query_inputs(spec)),
        EMBED_CANDIDATE: (embed_candidate, candidate_inputs(spec)),
        **(more or {}),
    }
    signatures = {
        name: tf.function(function, autograph=False).get_concrete_function(**inputs)
        for name, (function, inputs) in functions.items()
    }
    tf.saved_model.save(module, directory, signatures=signatures)


def named_weights(towers: Iterable[tf_keras.layers.Layer]) -> dict[str, tf.Variable]:
    """Return the variables by stable names, such as `candidate_tower:ids:embeddings`.

    Keras names contain counters of the layers that the process has created, so they change between
    runs. Here, a name is the path of attributes from the tower to the variable, without leading
    underscores. Exported models carry these names: renaming an attribute of a tower breaks warm
    starts from older models. A variable that both towers use is named after the first tower.
    """
    weights: dict[str, tf.Variable] = {}
    seen: set[int] = set()

    def visit(view: tf.train.TrackableView, node: object, path: tuple[str, ...]) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, tf.Variable):
            weights[_NAME_SEPARATOR.join(part.lstrip("_") for part in path)] = node
            return
        for name, child in view.children(node).items():
            visit(view, child, (*path, name))

    for tower in towers:
        visit(tf.train.TrackableView(tower), tower, (tower.name,))
    return weights


def _aligned_types(types: tf.Tensor, history: tf.Tensor, spec: FeatureSpec) -> tf.Tensor:
    """Return the index of the type of each event, without the gaps of the history.

    A client may give fewer types than events, or none.
    """
    width = tf.shape(history)[1]
    indices = tf.pad(type_indices(types, spec), [[0, 0], [0, width]], constant_values=-1)
    return tf.ragged.boolean_mask(indices[:, :width], history != "").to_tensor(-1)


def _first(indices: tf.SparseTensor, missing: int) -> tf.Tensor:
    """Return the first index of each row, `[batch]`, or `missing` for empty rows."""
    padded = tf.pad(pad_indices(indices), [[0, 0], [0, 1]], constant_values=-1)[:, 0]
    return tf.where(padded >= 0, padded, missing)
