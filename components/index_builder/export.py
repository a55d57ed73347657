"""Export the retrieval model: SavedModel, default inputs, warm-up requests and identity."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from components import files
from components.candidate_embedder.embedding_files import EmbeddingFiles, raw_candidates
from components.index_builder.ranked_signatures import RANK, RETRIEVE
from components.index_builder.served_signatures import (
    CANDIDATE_IDS_KEY,
    RECOMMEND_EXCLUDING,
    SERVING_DEFAULT,
    SIMILAR_CANDIDATES,
    RetrievalModel,
    allow_key,
)
from components.interactions.stable_hash import hash_strings
from models.features.spec import (
    EXCLUDE_KEY,
    EXCLUDE_SEEN_KEY,
    HISTORY_KEY,
    TIME_KEY,
    FeatureSpec,
)
from models.input.raw_inputs import candidate_inputs, default_value
from models.towers.export import EMBED_CANDIDATE, EMBED_QUERY

_SCANN_OPS_NAMESPACE = "Scann"
IDENTITY_FILE = os.path.join("assets.extra", "identity")
WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")

_SEEDS = (1, 2)
_BETWEEN_COLUMNS, _BETWEEN_VALUES = b"\x1e", "\x1f"

Inputs = Mapping[str, tf.Tensor]


def save_retrieval_model(
    model: RetrievalModel,
    directory: str,
    model_name: str,
    warmup: Iterable[tuple[str, Inputs]],
    identity: str,
) -> None:
    """Save the model atomically to a new folder, with the result of `identity_of`.

    Every input of every signature gets a default, so that clients may omit it. `warmup` has
    signatures and inputs of real requests, addressed to the model `model_name`. They make the
    server build the searcher at load time, which would otherwise delay the first user.
    """
    options = tf.saved_model.SaveOptions(namespace_whitelist=[_SCANN_OPS_NAMESPACE])
    with files.open_folder_to_write(directory) as folder:
        tf.saved_model.save(model, folder, signatures=model.signatures(), options=options)
        _write_defaults(folder)
        _write_warmup(folder, model_name, warmup)
        files.write_text(os.path.join(folder, IDENTITY_FILE), identity)


def _write_defaults(directory: str) -> None:
    path = os.path.join(directory, "saved_model.pb")
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(files.read_bytes(path))
    for name, signature in saved.meta_graphs[0].signature_def.items():
        if name.startswith("__"):  # internal, such as the initialization of tables
            continue
        for key, info in signature.inputs.items():
            shape = tf.TensorShape(info.tensor_shape)
            tensor = tf.TensorSpec(shape, tf.as_dtype(info.dtype), key)
            signature.defaults[key].CopyFrom(tf.make_tensor_proto(default_value(tensor).numpy()))
    files.write_bytes(path, saved.SerializeToString(deterministic=True))


def _write_warmup(directory: str, model_name: str, warmup: Iterable[tuple[str, Inputs]]) -> None:
    path = os.path.join(directory, WARMUP_FILE)
    files.make_folder(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for signature_name, inputs in warmup:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature_name
            for name, values in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(values.numpy()))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())


def warmup_requests(
    query: Inputs,
    embeddings: EmbeddingFiles,
    spec: FeatureSpec,
    filters: tuple[str, ...],
    *,
    ranked: bool = False,
) -> Iterator[tuple[str, Inputs]]:
    """Yield requests (signature and inputs) for every signature, with and without filters.

    A `ranked` model has the signatures of a ranking stage too.

    `query` has the inputs of one real query (`models.input.raw_inputs.query_inputs`). The requests
    for similar candidates use the first one of the catalogue.
    """
    names = [spec.candidate_id, *spec.catalogue_features]
    first = next(iter(embeddings.blocks(names))).slice(0, 1)
    candidate = raw_candidates(first, spec.catalogue_features, spec)
    candidate_id = {spec.candidate_id: candidate[spec.candidate_id]}
    candidate_id |= {name: of for name, of in query.items() if name == TIME_KEY}
    allow_any = {allow_key(name): tf.zeros([1, 0], tf.string) for name in filters}
    # Few candidates share the values of one, so these requests score all candidates that pass.
    allow_few = {
        allow_key(name): tf.reshape(candidate[name], [1, -1])
        for name in filters
        if tf.reduce_any(candidate[name] != "")
    }
    exclude = {EXCLUDE_KEY: query[HISTORY_KEY], EXCLUDE_SEEN_KEY: tf.constant([False])}
    yield SERVING_DEFAULT, query
    yield RECOMMEND_EXCLUDING, {**query, **exclude, **allow_any}
    yield SIMILAR_CANDIDATES, {**candidate_id, **allow_any}
    if allow_few:
        yield RECOMMEND_EXCLUDING, {**query, **exclude, **allow_any, **allow_few}
        yield SIMILAR_CANDIDATES, {**candidate_id, **allow_any, **allow_few}
    if ranked:
        yield RETRIEVE, query
        yield RANK, {**query, CANDIDATE_IDS_KEY: candidate_id[spec.candidate_id][None]}
    yield EMBED_QUERY, query
    yield EMBED_CANDIDATE, {name: candidate[name] for name in candidate_inputs(spec)}


def identity_of(
    towers_directory: str, embeddings: EmbeddingFiles, spec: FeatureSpec, settings: str
) -> str:
    """Return a hash of everything that determines the results of a retrieval model.

    Two exports of the same model have different bytes, because function names contain a counter.
    The identity hashes the inputs instead: the exported towers, the catalogue, and the settings
    followed by the hash of the code. It depends neither on the order of the candidates nor on their
    vectors, which the towers and the features determine up to rounding.
    """
    totals = [0] * len(_SEEDS)
    for block in embeddings.blocks([spec.candidate_id, *spec.catalogue_features]):
        rows = pc.binary_join_element_wise(*map(_as_bytes, block.columns), _BETWEEN_COLUMNS)
        for number, seed in enumerate(_SEEDS):
            # A sum does not depend on the order of the rows.
            total = int(hash_strings(rows, seed).sum(dtype=np.uint64))
            totals[number] = (totals[number] + total) % 2**64
    digest = hashlib.sha256()
    for part in (
        files.digest_of_folder(towers_directory),
        settings,
        embeddings.num_candidates,
        *totals,
    ):
        digest.update(f"{part}\0".encode())
    return digest.hexdigest()


def _as_bytes(column: Any) -> Any:
    if pa.types.is_list(column.type):
        if pa.types.is_floating(column.type.value_type):
            column = column.cast(pa.list_(pa.string()))
        column = pc.binary_join(column, _BETWEEN_VALUES)
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    return column.cast(pa.binary()).fill_null(b"")
