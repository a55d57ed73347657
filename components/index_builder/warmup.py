"""Requests that a server replays before a version becomes available, made from real ones."""

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.retrieval_model import (
    RECOMMEND_EXCLUDING,
    SERVING_DEFAULT,
    SIMILAR_CANDIDATES,
    allow_key,
)
from models.features.spec import EXCLUDE_KEY, HISTORY_KEY, FeatureConfig, FeatureSpec
from models.towers.export import EMBED_CANDIDATE, EMBED_QUERY

Inputs = Mapping[str, tf.Tensor]


def warmup_requests(
    query: Inputs, embeddings: EmbeddingFiles, spec: FeatureSpec, filters: tuple[str, ...]
) -> Iterator[tuple[str, Inputs]]:
    """Yields signatures and the inputs to ask them: all signatures, and all ways through them.

    Args:
        query: `models.input.raw_inputs.query_inputs` of a real query, one row.
        embeddings: The catalogue; its first candidate is asked about.
        spec: Ids and features.
        filters: Features that requests may filter by.
    """
    names = [spec.candidate_id, *spec.candidate_features]
    first = next(iter(embeddings.blocks(names))).slice(0, 1)
    [row] = first.to_pylist()
    candidate = {
        spec.candidate_id: tf.constant([row[spec.candidate_id]]),
        **{name: _raw(row[name], feature) for name, feature in spec.candidate_features.items()},
    }
    candidate_id = {spec.candidate_id: candidate[spec.candidate_id]}
    allow_any = {allow_key(name): tf.zeros([1, 0], tf.string) for name in filters}
    # The values of one candidate let few others pass: those that pass are all scored.
    allow_few = {
        allow_key(name): tf.reshape(candidate[name], [1, -1]) for name in filters if row[name]
    }
    exclude = {EXCLUDE_KEY: query[HISTORY_KEY]}
    yield SERVING_DEFAULT, query
    yield RECOMMEND_EXCLUDING, {**query, **exclude, **allow_any}
    yield SIMILAR_CANDIDATES, {**candidate_id, **allow_any}
    if allow_few:
        yield RECOMMEND_EXCLUDING, {**query, **exclude, **allow_any, **allow_few}
        yield SIMILAR_CANDIDATES, {**candidate_id, **allow_any, **allow_few}
    yield EMBED_QUERY, query
    yield EMBED_CANDIDATE, candidate


def _raw(value: Any, feature: FeatureConfig) -> tf.Tensor:
    """A value of the embedding files as the model takes it, one row."""
    if feature.kind == "numeric":
        return tf.constant([float("nan") if value is None else value], tf.float32)
    if feature.separator:
        return tf.constant([value or []], tf.string, [1, len(value or [])])
    return tf.constant([value or ""])
