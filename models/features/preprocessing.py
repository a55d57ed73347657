"""Raw Examples to indices and numbers: the `preprocessing_fn` of TFX's Transform.

Every feature arrives as a sparse tensor, because an Example of a timeline lacks the candidate
features and one of the catalogue lacks the query features. Every feature leaves as one too:
indices into a vocabulary (the last index is the out-of-vocabulary bucket), bucket numbers, or
normalised floats. A missing value stays missing.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from models.features.spec import (
    EVENT_TYPE_KEY,
    IS_TARGET_KEY,
    RATING_KEY,
    TIMESTAMP_KEY,
    FeatureConfig,
    FeatureSpec,
)

SPEC_KEY = "feature_spec"
QUERY_VOCABULARY_KEY = "query_vocabulary"
SPACE_IN_ID = "\x1f"


def preprocessing_fn(
    inputs: Mapping[str, tf.SparseTensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.SparseTensor]:
    """Transforms a batch of Examples.

    Args:
        inputs: Raw features by name, `[batch, n]` each.
        custom_config: `SPEC_KEY` holds the fields of a `FeatureSpec`, `QUERY_VOCABULARY_KEY`
            whether query ids get a vocabulary. Without one each is out of vocabulary, index 0:
            where the model has no vector for an id, analysing millions of sessions would be for
            nothing.

    Returns:
        Transformed features by the same names, `[batch, n]` int64 or float32 each.
    """
    spec = FeatureSpec.model_validate(custom_config[SPEC_KEY])
    outputs = {spec.candidate_id: _id_indices(inputs[spec.candidate_id], spec.candidate_id)}
    queries = inputs[spec.query_id]
    outputs[spec.query_id] = (
        _id_indices(queries, spec.query_id)
        if custom_config[QUERY_VOCABULARY_KEY]
        else queries.with_values(tf.zeros_like(queries.values, tf.int64))
    )
    for name, feature in {**spec.query_features, **spec.candidate_features}.items():
        outputs[name] = _feature(inputs[name], name, feature)
    for name in (TIMESTAMP_KEY, RATING_KEY, EVENT_TYPE_KEY, IS_TARGET_KEY):
        if name in inputs:
            outputs[name] = inputs[name]
    return outputs


def tokens(text: tf.SparseTensor) -> tf.SparseTensor:
    """Returns the lower-cased words of `text` `[batch, 1]` as strings `[batch, n]`.

    A word is a run of letters or digits of any script.
    """
    words = tf.strings.regex_replace(
        tf.strings.lower(tf.sparse.to_dense(text, default_value="")[:, :1], encoding="utf-8"),
        r"[^\p{L}\p{N}]+",
        " ",
    )
    return tf.strings.split(tf.strings.reduce_join(words, axis=1)).to_sparse()


def _id_indices(ids: tf.SparseTensor, name: str) -> tf.SparseTensor:
    # A line of a vocabulary with counts is "count id", and Transform's table splits it at every
    # space: spaces inside an id step aside for a character that ingestion refuses in ids.
    spaceless = ids.with_values(tf.strings.regex_replace(ids.values, " ", SPACE_IN_ID))
    return tft.compute_and_apply_vocabulary(
        spaceless,
        weights=_once_each(spaceless),
        num_oov_buckets=1,
        vocab_filename=name,
        store_frequency=True,
    )


def _feature(values: tf.SparseTensor, name: str, feature: FeatureConfig) -> tf.SparseTensor:
    if feature.kind == "numeric":
        if feature.buckets is not None:
            return tft.bucketize(values, feature.buckets)
        return tft.scale_to_z_score(values)
    words = tokens(values) if feature.kind == "text" else values
    return tft.compute_and_apply_vocabulary(
        words,
        weights=_once_each(words),
        top_k=feature.max_vocabulary,
        frequency_threshold=feature.min_count if feature.min_count > 1 else None,
        num_oov_buckets=1,
        vocab_filename=name,
    )


def _once_each(values: tf.SparseTensor) -> tf.Tensor:
    """Returns the weight of each value: 1.

    Transform counts weighted values in each batch before Beam adds up the batches, where Beam would
    take up every single one: with a million events half of the time.
    """
    return tf.ones_like(values.values, tf.int64)
