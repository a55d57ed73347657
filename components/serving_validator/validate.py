"""Asks a model server about an export and lists what is wrong with its answers."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from components.serving_validator.config import ServingConfig
from components.serving_validator.sample_queries import Questions
from components.serving_validator.warmup_replay import (
    Replay,
    replay_in_process,
    replay_on_server,
)
from serving.clients.answer import Recommendations
from serving.clients.grpc_client import RetrievalClient
from serving.clients.model import decode_text
from serving.clients.query import Query
from serving.errors import DeadlineExceededError, ServingError
from serving.launcher import running_model_server

_SCORE_TOLERANCE = 1e-3
_NUM_EXCLUDED = 5
_NUM_SIMILAR = 8
_SHOWN = 5


def validate_serving(model_path: str, questions: Questions, config: ServingConfig) -> list[str]:
    """Returns what is wrong with the served model, nothing if all is well.

    Starts the model server as its own process and asks over gRPC: real queries, one by one and
    all in one request; the same without the best answers; an unknown query; similar candidates; and
    the model's own warm-up requests, which reach every signature and filter. Answers must have k
    different candidates, best first, and equal those of the model in process.

    Args:
        model_path: The SavedModel.
        questions: Real queries.
        config: Name, timeouts.

    Raises:
        LaunchError: The server did not come up. That may be this machine's fault and not the
            model's, so it is no verdict that a cache could keep; nothing is pushed all the same.
        ServingError: The server could not be reached, or not in time; likewise.
    """
    # The server imports TensorFlow and loads for seconds: meanwhile this process does too.
    with (
        ThreadPoolExecutor(1) as pool,
        tempfile.TemporaryDirectory(prefix="serving_validator_") as base,
    ):
        expected = pool.submit(_expected, model_path, questions)
        version = os.path.join(base, "1")
        if "://" in model_path:
            tf.io.gfile.makedirs(version)
            _copy(model_path, version)
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
                    query_id_name=questions.query_id_name,
                    candidate_id_name=questions.candidate_id_name,
                ) as client,
            ):
                alone, together, replays = expected.result()
                problems = _ask(client, questions, alone, together) + replay_on_server(
                    replays,
                    server.grpc_target,
                    config.model_name,
                    config.request_timeout_s,
                    _SCORE_TOLERANCE,
                )
        except ServingError as error:
            if error.retryable or isinstance(error, DeadlineExceededError):
                raise
            problems = [f"{type(error).__name__}: {error}"]
    more = len(problems) - _SHOWN
    return problems[:_SHOWN] + ([f"… and {more} more"] if more > 0 else [])


def _ask(
    client: RetrievalClient,
    questions: Questions,
    alone: Sequence[Recommendations],
    together: Sequence[Recommendations],
) -> list[str]:
    problems = []
    for query, answer in zip(questions.queries, alone, strict=True):
        problems += _differences(
            f"query {query.query_id!r}", client.recommend(queries=[query])[0], answer
        )
    batch = client.recommend(queries=questions.queries)
    for query, actual, answer in zip(questions.queries, batch, together, strict=True):
        problems += _differences(f"query {query.query_id!r} in a batch", actual, answer)
    width = len(alone[0].candidate_ids)
    for query, answer in zip(questions.queries, alone, strict=True):
        excluded = answer.candidate_ids[: min(_NUM_EXCLUDED, width - 1)]
        asked = Query(query.query_id, query.history, query.features, exclude=excluded)
        actual = client.recommend(queries=[asked])[0]
        place = f"query {query.query_id!r} with exclusions"
        problems += _malformed(place, actual, width - len(excluded), width)
        if set(excluded) & set(actual.candidate_ids):
            problems.append(f"{place}: an excluded candidate came back")
    problems += _malformed(
        "an unknown query", client.recommend(query_id="\N{SNOWMAN} nobody"), width, width
    )
    for candidate_id in alone[0].candidate_ids[:_NUM_SIMILAR]:
        actual = client.similar(candidate_id)
        place = f"similar to {candidate_id!r}"
        # A catalogue of one candidate holds nothing similar to it.
        problems += _malformed(place, actual, width - 1, width) if width > 1 else []
        if candidate_id in actual.candidate_ids:
            problems.append(f"{place}: the candidate itself came back")
    return problems


def _differences(place: str, actual: Recommendations, expected: Recommendations) -> list[str]:
    width = len(expected.candidate_ids)
    problems = _malformed(place, actual, width, width)
    if problems:
        return problems
    # By score and not by place: candidates with equal scores may change places.
    if not np.allclose(
        actual.scores, expected.scores, rtol=_SCORE_TOLERANCE, atol=_SCORE_TOLERANCE
    ):
        problems.append(f"{place}: the server's scores differ from the model's")
    common = len(set(actual.candidate_ids) & set(expected.candidate_ids))
    if common < len(set(expected.candidate_ids)) - 1:
        problems.append(
            f"{place}: the server and the model share {common} of "
            f"{len(expected.candidate_ids)} candidates"
        )
    return problems


def _malformed(place: str, answer: Recommendations, least: int, most: int) -> list[str]:
    ids = answer.candidate_ids
    problems = []
    if not least <= len(ids) <= most:
        wanted = str(most) if least == most else f"{least} to {most}"
        problems.append(f"{place}: {len(ids)} candidates instead of {wanted}")
    if not ids:
        problems.append(f"{place}: no candidates")
    if len(set(ids)) != len(ids):
        problems.append(f"{place}: a candidate came twice")
    if not np.all(np.isfinite(answer.scores)):
        problems.append(f"{place}: a score is not a number")
    if any(np.diff(answer.scores) > _SCORE_TOLERANCE):
        problems.append(f"{place}: not the best first")
    return problems


def _expected(
    model_path: str, questions: Questions
) -> tuple[list[Recommendations], list[Recommendations], list[Replay]]:
    """Asks the model in process: the questions alone and together, and its warm-up requests.

    An approximate index may take another way for a batch than for a query alone: ScaNN then
    searches other leaves for some of a hundred queries. Alone, a question keeps the width that the
    batch has: an answer must not depend on padding.
    """
    with contextlib.suppress(ImportError):  # an exact index needs no ops of ScaNN's
        from scann.scann_ops.py import scann_ops  # noqa: F401 - registers them
    model = tf.saved_model.load(model_path)
    signature = model.signatures["serving_default"]
    alone = [
        answer
        for row in range(len(questions.queries))
        for answer in _answers(
            signature, {name: values[row : row + 1] for name, values in questions.inputs.items()}
        )
    ]
    together = _answers(signature, questions.inputs)
    return alone, together, replay_in_process(model_path, model.signatures)


def _answers(
    signature: Callable[..., Mapping[str, tf.Tensor]], inputs: Mapping[str, tf.Tensor]
) -> list[Recommendations]:
    answer = signature(**inputs)
    return [
        Recommendations(tuple(decode_text(item) for item in ids), tuple(scores), None)
        for ids, scores in zip(
            answer["candidate_ids"].numpy().tolist(), answer["scores"].numpy().tolist(), strict=True
        )
    ]


def _copy(source: str, destination: str) -> None:
    for folder, _, names in tf.io.gfile.walk(source):
        target = destination + folder[len(source.rstrip("/")) :]
        tf.io.gfile.makedirs(target)
        for name in names:
            tf.io.gfile.copy(os.path.join(folder, name), os.path.join(target, name))
