"""The queries that ServingValidator sends, and the answers that it expects to them.

The expected answers are those of the model in process. Apart from sample queries, the server gets
the warm-up requests of the export: real requests to every signature, with and without filters
(`components.index_builder.saved_retrieval_model`).
"""

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from models.features.spec import HISTORY_KEY, FeatureSpec
from models.input.raw_examples import RawTimelines
from serving.clients.answer import Recommendations
from serving.clients.model import decode_text
from serving.clients.query import Query

_WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")


@dataclass(frozen=True)
class SampleQueries:
    """Real queries in two forms: tensors for the model in process, and queries of a client.

    Attributes:
        inputs: `models.input.raw_inputs.query_inputs`, one row per query.
        queries: The same queries in the same order.
        query_id_name: Name of the input that has the query ID.
        candidate_id_name: Name of the input of the signature `similar_candidates`.
    """

    inputs: Mapping[str, tf.Tensor]
    queries: list[Query]
    query_id_name: str
    candidate_id_name: str

    @classmethod
    def from_timelines(cls, timelines: RawTimelines, spec: FeatureSpec) -> "SampleQueries":
        """Return one query per timeline."""
        columns = {name: values.numpy().tolist() for name, values in timelines.inputs.items()}
        queries = []
        for row in range(len(columns[spec.query_id])):
            features = {name: _without_padding(columns[name][row]) for name in spec.query_features}
            queries.append(
                Query(
                    query_id=decode_text(columns[spec.query_id][row]),
                    history=_without_padding(columns[HISTORY_KEY][row]),
                    features={name: value for name, value in features.items() if value is not None},
                )
            )
        return cls(timelines.inputs, queries, spec.query_id, spec.candidate_id)


@dataclass(frozen=True)
class WarmupAnswer:
    """A warm-up request with the outputs of the model in process."""

    request: predict_pb2.PredictRequest
    outputs: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ExpectedAnswers:
    """Answers of the model in process.

    An approximate index may search other leaves for a batch than for a single query, so both are
    computed. A single query keeps the padding that it has in the batch, because an answer must not
    depend on padding.

    Attributes:
        single: Answers to sample queries, each asked alone.
        batch: Answers to the same queries, asked in one batch.
        warmup: Answers to the warm-up requests.
    """

    single: list[Recommendations]
    batch: list[Recommendations]
    warmup: list[WarmupAnswer]

    @classmethod
    def compute(cls, model_path: str, samples: SampleQueries) -> "ExpectedAnswers":
        """Load a SavedModel and ask it."""
        with contextlib.suppress(ImportError):  # only ScaNN indexes need its ops
            from scann.scann_ops.py import scann_ops  # noqa: F401 - registers them
        model = tf.saved_model.load(model_path)
        recommend = model.signatures["serving_default"]
        single = [
            answer
            for row in range(len(samples.queries))
            for answer in _answers(
                recommend, {name: values[row : row + 1] for name, values in samples.inputs.items()}
            )
        ]
        batch = _answers(recommend, samples.inputs)
        return cls(single, batch, answer_warmup_requests(model_path, model.signatures))


def answer_warmup_requests(model_path: str, signatures: Mapping[str, Any]) -> list[WarmupAnswer]:
    """Return the warm-up requests of a SavedModel, if it has any, with the answers to them."""
    path = os.path.join(model_path, _WARMUP_FILE)
    answers: list[WarmupAnswer] = []
    if not tf.io.gfile.exists(path):
        return answers
    for record in tf.data.TFRecordDataset(path):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        inputs = {
            name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()
        }
        outputs = signatures[request.model_spec.signature_name](**inputs)
        answers.append(
            WarmupAnswer(request, {name: values.numpy() for name, values in outputs.items()})
        )
    return answers


def _answers(
    signature: Callable[..., Mapping[str, tf.Tensor]], inputs: Mapping[str, tf.Tensor]
) -> list[Recommendations]:
    outputs = signature(**inputs)
    ids, scores = (outputs[name].numpy().tolist() for name in ("candidate_ids", "scores"))
    return [
        Recommendations(tuple(map(decode_text, row_ids)), tuple(row_scores), None)
        for row_ids, row_scores in zip(ids, scores, strict=True)
    ]


def _without_padding(value: Any) -> Any:
    """Return a value in the form that a client sends, or None if it is missing."""
    if isinstance(value, list):
        return [decode_text(item) for item in value if item != b""]
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return decode_text(value) or None
