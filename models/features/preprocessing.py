"""The `preprocessing_fn` of TFX's Transform: raw Examples to indices and normalised numbers."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from models.features.spec import (
    AVAILABLE_FROM_KEY,
    AVAILABLE_UNTIL_KEY,
    EVENT_TYPE_KEY,
    HOURS,
    IS_TARGET_KEY,
    MISSING_INDEX,
    RATING_KEY,
    TIMESTAMP_KEY,
    WEEKDAYS,
    FeatureConfig,
    FeatureSpec,
)
from models.features.vocabularies import escape_line_ends

SPEC_KEY = "feature_spec"
QUERY_VOCABULARY_KEY = "query_vocabulary"
SPACE_IN_ID = "\x1f"
_MAX_LEVELS = 8
# 1970-01-01 was a Thursday; weeks begin on Monday.
_FIRST_WEEKDAY = 3


def preprocessing_fn(
    inputs: Mapping[str, tf.SparseTensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.SparseTensor]:
    """Convert a batch of raw Examples to indices and normalised numbers.

    All features are sparse `[batch, n]`, because timelines lack the candidate features and the
    catalogue lacks the query features. Missing values stay missing. The outputs are int64 indices
    into a vocabulary, whose last index is the out-of-vocabulary bucket, int64 bucket numbers,
    hours and weekdays, float32 z-scores, or the float32 numbers of vectors as they are.

    In `custom_config`, `SPEC_KEY` contains the fields of the `FeatureSpec`. Without
    `QUERY_VOCABULARY_KEY`, all query IDs get index 0, which avoids analysing millions of session
    IDs if the model has no embeddings for them.
    """
    spec = FeatureSpec.model_validate(custom_config[SPEC_KEY])
    queries, candidates = inputs[spec.query_id], inputs[spec.candidate_id]
    # The vocabulary counts events. A row of the catalogue has no query and counts 0.
    is_timeline = tf.math.bincount(
        tf.cast(queries.indices[:, 0], tf.int32),
        minlength=tf.cast(queries.dense_shape[0], tf.int32),
    )
    events = tf.cast(tf.gather(is_timeline, candidates.indices[:, 0]), tf.int64)
    outputs = {spec.candidate_id: _id_indices(candidates, spec.candidate_id, events)}
    outputs[spec.query_id] = (
        _id_indices(queries, spec.query_id, tf.ones_like(queries.values, tf.int64))
        if custom_config[QUERY_VOCABULARY_KEY]
        else queries.with_values(tf.zeros_like(queries.values, tf.int64))
    )
    for name, feature in {**spec.request_features, **spec.candidate_features}.items():
        outputs[name] = _transformed_feature(inputs[name], name, feature)
    for name in spec.context:
        # Each event has a value, so that the values stay aligned; a missing one is "".
        missing = tf.constant(MISSING_INDEX, tf.int64)
        indices = tf.where(inputs[name].values == "", missing, outputs[name].values)
        outputs[name] = outputs[name].with_values(indices)
    of_events = TIMESTAMP_KEY, RATING_KEY, EVENT_TYPE_KEY, IS_TARGET_KEY, *spec.columns.labels
    kept = (*of_events, AVAILABLE_FROM_KEY, AVAILABLE_UNTIL_KEY)
    return outputs | {name: inputs[name] for name in kept if name in inputs}


def tokens(text: tf.SparseTensor) -> tf.SparseTensor:
    """Return the lower-cased words of `text` `[batch, 1]` as strings `[batch, n]`.

    A word is a run of letters or digits of any script.
    """
    words = tf.strings.regex_replace(
        tf.strings.lower(tf.sparse.to_dense(text, default_value="")[:, :1], encoding="utf-8"),
        r"[^\p{L}\p{N}]+",
        " ",
    )
    return tf.strings.split(tf.strings.reduce_join(words, axis=1)).to_sparse()


def prefixes(paths: tf.SparseTensor, separator: str) -> tf.SparseTensor:
    """Return the prefixes of paths `[batch, 1]`, such as a and a>b of "a > b", `[batch, n]`.

    Spaces around a level do not matter. Levels beyond the eighth are ignored.
    """
    dense = tf.sparse.to_dense(paths, default_value="")[:, :1]
    levels = tf.strings.split(tf.strings.reduce_join(dense, axis=1), separator)
    padded = tf.strings.strip(levels[:, :_MAX_LEVELS].to_tensor("", shape=[None, _MAX_LEVELS]))
    found = [
        tf.where(
            padded[:, level] != "",
            tf.strings.reduce_join(padded[:, : level + 1], axis=1, separator=separator),
            "",
        )
        for level in range(_MAX_LEVELS)
    ]
    return tf.sparse.from_dense(tf.stack(found, axis=1))


def hour_and_weekday(times: tf.SparseTensor) -> tf.SparseTensor:
    """Return the indices of the hour and of the weekday (UTC) of times `[batch, 1]`, `[batch, 2]`.

    Weekdays, of which Monday is the first, are counted after the hours.
    """
    hours = tf.math.floordiv(times.values, 3600)
    days = tf.math.floordiv(hours, HOURS)
    weekdays = HOURS + tf.math.floormod(days + _FIRST_WEEKDAY, WEEKDAYS)
    parts = [times.with_values(of) for of in (tf.math.floormod(hours, HOURS), weekdays)]
    return tf.sparse.concat(1, parts)


def _id_indices(ids: tf.SparseTensor, name: str, counts: tf.Tensor) -> tf.SparseTensor:
    # A line of a vocabulary with counts is "count id", and Transform's lookup table splits it at
    # each space. Spaces in IDs are therefore replaced by a character that ingestion rejects in IDs.
    spaceless = ids.with_values(tf.strings.regex_replace(ids.values, " ", SPACE_IN_ID))
    return _vocabulary_indices(spaceless, name, counts, store_frequency=True)


def _transformed_feature(
    values: tf.SparseTensor, name: str, feature: FeatureConfig
) -> tf.SparseTensor:
    if feature.kind == "vector":
        return values
    if feature.kind == "datetime":
        return hour_and_weekday(values)
    if feature.kind == "numeric":
        if feature.buckets is not None:
            return tft.bucketize(values, feature.buckets)
        # In float32, the squares of large numbers lose digits or overflow.
        scaled = tft.scale_to_z_score(tf.cast(values, tf.float64))
        return tf.cast(scaled, tf.float32)
    if feature.kind == "text":
        words = tokens(values)
    else:
        if feature.path_separator is not None:
            values = prefixes(values, feature.path_separator)
        words = values.with_values(escape_line_ends(values.values))
    return _vocabulary_indices(
        words,
        name,
        tf.ones_like(words.values, tf.int64),
        top_k=feature.max_vocabulary,
        frequency_threshold=feature.min_count if feature.min_count > 1 else None,
    )


def _vocabulary_indices(
    values: tf.SparseTensor, name: str, counts: tf.Tensor, **options: Any
) -> tf.SparseTensor:
    # With weights, Transform sums the values of a batch before Beam combines the batches. Without
    # weights, each value passes through Beam, which took half of the time with a million events.
    return tft.compute_and_apply_vocabulary(
        values, weights=counts, num_oov_buckets=1, vocab_filename=name, **options
    )
