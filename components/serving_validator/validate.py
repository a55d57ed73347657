"""Send requests to a model server and compare its answers with those of the model in process."""

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from components import files
from components.serving_validator.config import ServingConfig
from components.serving_validator.expected_answers import (
    ExpectedAnswers,
    SampleQueries,
    WarmupAnswer,
)
from serving.clients.answer import Recommendations
from serving.clients.grpc_client import RetrievalClient
from serving.clients.query import Query
from serving.errors import DeadlineExceededError, ServingError, from_grpc_code
from serving.launcher import running_model_server

# Relative and absolute.
_TOLERANCE = 1e-3
_NUM_EXCLUDED = 5
_NUM_SIMILAR = 8
_NUM_SHOWN = 5


def validate_serving(model_path: str, samples: SampleQueries, config: ServingConfig) -> list[str]:
    """Start the model server on an export and return the problems of its answers.

    The server gets the sample queries over gRPC, one by one and in one batch, and then again
    without their best candidates. It also gets an unknown query, requests for similar candidates,
    and the warm-up requests of the export. Each answer must have k different candidates, best
    first, and equal the answer of the model in process where there is one.

    Args:
        model_path: The SavedModel.
        samples: Real queries.
        config: Served name and timeouts.

    Returns:
        The first problems, and the number of the others; empty if the answers are right.

    Raises:
        LaunchError: The server did not start. The machine may be the reason, and not the model, so
            there is no verdict that the cache could keep.
        ServingError: The server could not be reached, or not in time; again without a verdict.
    """
    # The server takes seconds to import TensorFlow and load the model; meanwhile this process
    # computes the expected answers.
    with (
        ThreadPoolExecutor(1) as pool,
        tempfile.TemporaryDirectory(prefix="serving_validator_") as base,
    ):
        computing = pool.submit(ExpectedAnswers.compute, model_path, samples)
        version = os.path.join(base, "1")
        if files.is_remote(model_path):
            files.copy_folder(model_path, version)
        else:
            os.symlink(os.path.abspath(model_path), version)
        try:
            with (
                running_model_server(
                    base, config.model_name, timeout_s=config.startup_timeout_s
                ) as server,
                RetrievalClient(
                    server.grpc_target,
                    config.model_name,
                    timeout_s=config.request_timeout_s,
                    query_id_name=samples.query_id_name,
                    candidate_id_name=samples.candidate_id_name,
                ) as client,
            ):
                expected = computing.result()
                problems = _check_queries(client, samples.queries, expected)
                problems += check_warmup_requests(
                    expected.warmup,
                    server.grpc_target,
                    config.model_name,
                    config.request_timeout_s,
                )
        except ServingError as error:
            if error.retryable or isinstance(error, DeadlineExceededError):
                raise
            problems = [f"{type(error).__name__}: {error}"]
    more = len(problems) - _NUM_SHOWN
    return problems[:_NUM_SHOWN] + ([f"… and {more} more"] if more > 0 else [])


def _check_queries(
    client: RetrievalClient, queries: Sequence[Query], expected: ExpectedAnswers
) -> list[str]:
    problems = []
    for query, answer in zip(queries, expected.single, strict=True):
        actual = client.recommend(queries=[query])[0]
        problems += _differences(f"query {query.query_id!r}", actual, answer)
    in_batch = client.recommend(queries=queries)
    for query, actual, answer in zip(queries, in_batch, expected.batch, strict=True):
        problems += _differences(f"query {query.query_id!r} in a batch", actual, answer)
    k = len(expected.single[0].candidate_ids)
    for query, answer in zip(queries, expected.single, strict=True):
        excluded = answer.candidate_ids[: min(_NUM_EXCLUDED, k - 1)]
        restricted = Query(query.query_id, query.history, query.features, exclude=excluded)
        actual = client.recommend(queries=[restricted])[0]
        label = f"query {query.query_id!r} with exclusions"
        problems += _flaws(label, actual, k - len(excluded), k)
        if set(excluded) & set(actual.candidate_ids):
            problems.append(f"{label}: the answer has an excluded candidate")
    unknown = client.recommend(query_id="\N{SNOWMAN} nobody")
    problems += _flaws("an unknown query", unknown, k, k)
    for candidate_id in expected.single[0].candidate_ids[:_NUM_SIMILAR]:
        actual = client.similar(candidate_id)
        label = f"similar to {candidate_id!r}"
        if k > 1:  # in a catalogue of one candidate, nothing is similar to it
            problems += _flaws(label, actual, k - 1, k)
        if candidate_id in actual.candidate_ids:
            problems.append(f"{label}: the answer has the candidate itself")
    return problems


def check_warmup_requests(
    expected: Sequence[WarmupAnswer], target: str, model_name: str, timeout_s: float
) -> list[str]:
    """Send warm-up requests to a server and return which answers differ from the expected ones.

    Raises:
        ServingError: A request failed.
    """
    problems = []
    with grpc.insecure_channel(target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for number, answer in enumerate(expected):
            request = predict_pb2.PredictRequest()
            request.CopyFrom(answer.request)
            request.model_spec.name = model_name
            try:
                response = stub.Predict(request, timeout=timeout_s)
            except grpc.RpcError as error:
                raise from_grpc_code(error.code().value[0], error.details() or "") from error
            if different := _different_outputs(response, answer):
                problems.append(
                    f"warm-up request {number} to {request.model_spec.signature_name}: the "
                    f"server's {', '.join(different)} differ from the model's"
                )
    return problems


def _different_outputs(response: predict_pb2.PredictResponse, expected: WarmupAnswer) -> list[str]:
    if unpaired := set(response.outputs) ^ set(expected.outputs):
        return sorted(unpaired)
    different = []
    for name, wanted in sorted(expected.outputs.items()):
        actual = tf.make_ndarray(response.outputs[name])
        if actual.shape != wanted.shape:
            different.append(name)
        elif wanted.dtype.kind == "f":
            if not np.allclose(actual, wanted, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
                different.append(name)
        # Of candidates with equal scores, the last of k may be another one.
        elif any(
            len(set(wanted_row) - set(row)) > 1
            for wanted_row, row in zip(wanted.tolist(), actual.tolist(), strict=True)
        ):
            different.append(name)
    return different


def _differences(label: str, actual: Recommendations, expected: Recommendations) -> list[str]:
    k = len(expected.candidate_ids)
    if problems := _flaws(label, actual, k, k):
        return problems
    if not np.allclose(actual.scores, expected.scores, rtol=_TOLERANCE, atol=_TOLERANCE):
        problems.append(f"{label}: the server's scores differ from the model's")
    # IDs are compared as sets, because candidates with equal scores may come in any order.
    common = len(set(actual.candidate_ids) & set(expected.candidate_ids))
    if common < len(set(expected.candidate_ids)) - 1:
        problems.append(f"{label}: the server and the model share {common} of {k} candidates")
    return problems


def _flaws(label: str, answer: Recommendations, least: int, most: int) -> list[str]:
    """Return the problems of an answer that show without an expected answer."""
    ids = answer.candidate_ids
    problems = []
    if not least <= len(ids) <= most:
        wanted = str(most) if least == most else f"{least} to {most}"
        problems.append(f"{label}: {len(ids)} candidates instead of {wanted}")
    if not ids:
        problems.append(f"{label}: no candidates")
    if len(set(ids)) != len(ids):
        problems.append(f"{label}: the answer has a candidate twice")
    if not np.all(np.isfinite(answer.scores)):
        problems.append(f"{label}: a score is not a finite number")
    if any(np.diff(answer.scores) > _TOLERANCE):
        problems.append(f"{label}: the candidates are not sorted by score")
    return problems
