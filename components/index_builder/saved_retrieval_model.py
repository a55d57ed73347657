"""Writes the retrieval SavedModel: graph, defaults of its inputs, warm-up requests."""

import os
from collections.abc import Iterable

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from components.index_builder.retrieval_model import RetrievalModel
from components.index_builder.warmup import Inputs
from models.input.raw_inputs import default_value

_SCANN_OPS_NAMESPACE = "Scann"
# What the model is made of; where it is the same, a push would change nothing.
IDENTITY_FILE = os.path.join("assets.extra", "identity")
_WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")


def save_retrieval_model(
    model: RetrievalModel,
    directory: str,
    model_name: str,
    warmup: Iterable[tuple[str, Inputs]],
    identity: str,
) -> None:
    """Saves the model, whole or not at all.

    Every input of every signature gets a default, so that a client may leave it out. Warm-up
    requests go along, because the first search builds the searcher, which would otherwise happen
    in the first user's request.

    Args:
        model: With its index.
        directory: Of the SavedModel; must not exist.
        model_name: Under which it is served; stands in the warm-up requests.
        warmup: Signatures and inputs of real requests.
        identity: What the model is made of (`components.index_builder.identity`).
    """
    aside = f"{directory.rstrip('/')}.incomplete"
    if tf.io.gfile.exists(aside):
        tf.io.gfile.rmtree(aside)
    tf.saved_model.save(
        model,
        aside,
        signatures=model.signatures(),
        options=tf.saved_model.SaveOptions(namespace_whitelist=[_SCANN_OPS_NAMESPACE]),
    )
    _write_defaults(aside)
    _write_warmup(aside, model_name, warmup)
    with tf.io.gfile.GFile(os.path.join(aside, IDENTITY_FILE), "w") as file:
        file.write(identity)
    tf.io.gfile.rename(aside, directory)


def _write_defaults(directory: str) -> None:
    path = os.path.join(directory, "saved_model.pb")
    saved = saved_model_pb2.SavedModel()
    with tf.io.gfile.GFile(path, "rb") as file:
        saved.ParseFromString(file.read())
    for name, signature in saved.meta_graphs[0].signature_def.items():
        if name.startswith("__"):  # TensorFlow's own, such as the initialisation of tables
            continue
        for key, info in signature.inputs.items():
            shape = tf.TensorShape(info.tensor_shape)
            tensor = tf.TensorSpec(shape, tf.as_dtype(info.dtype), key)
            signature.defaults[key].CopyFrom(tf.make_tensor_proto(default_value(tensor).numpy()))
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(saved.SerializeToString(deterministic=True))


def _write_warmup(directory: str, model_name: str, warmup: Iterable[tuple[str, Inputs]]) -> None:
    path = os.path.join(directory, _WARMUP_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
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
