"""Send requests to a model server and compare its answers with those of the model in process."""

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from components import files
from components.index_builder.catalogue_files import IDS_FILE
from components.index_builder.loaded_model import LoadedModel, Tensors
from components.index_builder.ranked_signatures import RETRIEVAL_SCORES_KEY
from components.serving_validator.config import ServingConfig
from models.features.spec import (
    EXCLUDE_KEY,
    HISTORY_KEY,
    HISTORY_TYPES_KEY,
    TIME_KEY,
    FeatureSpec,
)
from serving.errors import DeadlineExceededError, ServingError, from_grpc_code
from serving.launcher import running_model_server

_WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
# Relative and absolute.
_TOLERANCE = 1e-3
_NUM_EXCLUDED = 5
_NUM_SIMILAR = 8
_NUM_SHOWN = 5
_IDS, _SCORES = "candidate_ids", "scores"


@dataclass(frozen=True)
class ServerCheck:
    """The problems of a server's answers, and its times for a query alone in milliseconds."""

    problems: list[str]
    latencies_ms: list[float]


@dataclass(frozen=True)
class Request:
    """A request to a signature, and the outputs of the model in process.

    Each row of the answer must have at least `least` candidates, and none of those in `forbidden`.
    """

    label: str
    signature: str
    inputs: Tensors
    expected: Tensors
    least: int = 0
    forbidden: frozenset[bytes] = frozenset()

    @property
    def is_alone(self) -> bool:
        """True if the request has one row."""
        return all(len(values) == 1 for values in self.inputs.values())


def validate_serving(
    model_path: str, queries: Mapping[str, tf.Tensor], spec: FeatureSpec, config: ServingConfig
) -> ServerCheck:
    """Start the model server on an export and check its answers.

    The server gets the requests of `requests_of` over gRPC. Each answer must have different
    candidates, best first, with finite scores, and equal the answer of the model in process.
    `queries` has the inputs of real queries (`models.input.raw_inputs.query_inputs`). The result
    has the first problems and the number of the others; there are none if the answers are right.

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
        asked = requests_of(model_path, queries, spec, config.known_histories)
        computing = pool.submit(list, asked)
        version = os.path.join(base, "1")
        if files.is_remote(model_path):
            files.copy_folder(model_path, version)
        else:
            os.symlink(os.path.abspath(model_path), version)
        try:
            with running_model_server(
                base, config.model_name, timeout_s=config.startup_timeout_s
            ) as server:
                check = check_requests(computing.result(), server.grpc_target, config)
        except ServingError as error:
            if error.retryable or isinstance(error, DeadlineExceededError):
                raise
            check = ServerCheck([f"{type(error).__name__}: {error}"], [])
    more = len(check.problems) - _NUM_SHOWN
    rest = [f"… and {more} more"] if more > 0 else []
    return replace(check, problems=check.problems[:_NUM_SHOWN] + rest)


def requests_of(
    model_path: str, queries: Mapping[str, tf.Tensor], spec: FeatureSpec, known_histories: int = 0
) -> Iterator[Request]:
    """Yield requests to a SavedModel, with its answers in this process.

    These are each query alone, all queries in one batch (for which an approximate index may search
    other leaves), each query without its best candidates, the query IDs alone, an unknown query,
    similar candidates of the best ones, and the warm-up requests, which use every signature with
    and without filters.

    The model gets a query alone with the padding that it has in the batch, and the server gets it
    without, because an answer must not depend on padding.
    """
    model = LoadedModel(model_path)
    batch = {name: values.numpy() for name, values in queries.items()}

    def request(
        label: str, signature: str, inputs: Tensors, asked: Tensors | None = None, **checks: Any
    ) -> Request:
        expected = model.answer(signature, asked or inputs)
        return Request(label, signature, inputs, expected, **checks)

    whole = request("the queries in a batch", "serving_default", batch)
    best = whole.expected[_IDS].tolist()
    k = len(best[0])
    leasts = [k] * len(best)
    if RETRIEVAL_SCORES_KEY in whole.expected:
        # A ranking stage may exclude seen candidates, which leaves fewer of a small catalogue.
        size = files.read_bytes(os.path.join(model_path, "assets", IDS_FILE)).count(b"\n")
        seen = [len({*row} - {b""}) or known_histories for row in batch[HISTORY_KEY].tolist()]
        leasts = [max(0, min(k, size - number)) for number in seen]
    # The unknown query and similar candidates are of the first query's time.
    time = {TIME_KEY: batch[TIME_KEY][:1]} if TIME_KEY in batch else {}
    if time:  # few candidates may be available
        leasts = [0] * len(best)
    yield replace(whole, least=min(leasts))
    for row, query_id in enumerate(batch[spec.query_id]):
        label = f"query {_text(query_id)}"
        padded = {name: values[row : row + 1] for name, values in batch.items()}
        present = padded[HISTORY_KEY][0] != b""
        lists = padded.keys() & {HISTORY_KEY, HISTORY_TYPES_KEY}
        alone = {**padded, **{name: padded[name][:, present] for name in lists}}
        least = leasts[row]
        yield request(label, "serving_default", alone, padded, least=least)
        excluded = best[row][: max(0, min(_NUM_EXCLUDED, least - 1))]
        checks: dict[str, Any] = {"least": least - len(excluded), "forbidden": frozenset(excluded)}
        without = {**alone, EXCLUDE_KEY: np.array([excluded], object).reshape(1, -1)}
        yield request(f"{label} with exclusions", "recommend_excluding", without, **checks)
    ids = {spec.query_id: batch[spec.query_id]}
    yield request("the query IDs alone", "serving_default", ids)
    unknown = {spec.query_id: np.array(["\N{SNOWMAN} nobody".encode()], object)}
    unknown |= time
    yield request("an unknown query", "serving_default", unknown, least=0 if time else k)
    for candidate in filter(None, best[0][:_NUM_SIMILAR]):
        inputs = {spec.candidate_id: np.array([candidate], object), **time}
        checks = {"least": 0 if time else k - 1, "forbidden": frozenset([candidate])}
        yield request(f"similar to {_text(candidate)}", "similar_candidates", inputs, **checks)
    for number, message in enumerate(_warmup_messages(model_path)):
        signature = message.model_spec.signature_name
        inputs = {name: tf.make_ndarray(value) for name, value in message.inputs.items()}
        yield request(f"warm-up request {number} to {signature}", signature, inputs)


def _text(name: bytes) -> str:
    return repr(name.decode(errors="backslashreplace"))


def _warmup_messages(model_path: str) -> Iterator[predict_pb2.PredictRequest]:
    for record in tf.data.TFRecordDataset([os.path.join(model_path, _WARMUP_FILE)]):
        yield prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request


def check_requests(requests: Iterable[Request], target: str, config: ServingConfig) -> ServerCheck:
    """Send requests to a server, one after the other, and check its answers.

    Raises:
        ServingError: A request failed.
    """
    problems: list[str] = []
    latencies_ms = []
    with grpc.insecure_channel(target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for request in requests:
            message = predict_pb2.PredictRequest()
            message.model_spec.name = config.model_name
            message.model_spec.signature_name = request.signature
            for name, values in request.inputs.items():
                message.inputs[name].CopyFrom(tf.make_tensor_proto(values))
            started = time.perf_counter()
            try:
                response = stub.Predict(message, timeout=config.request_timeout_s)
            except grpc.RpcError as error:
                raise from_grpc_code(error.code().value[0], error.details() or "") from error
            latency_ms = round(1000 * (time.perf_counter() - started), 3)
            if request.signature == "serving_default" and request.is_alone:
                latencies_ms.append(latency_ms)
            outputs = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
            problems += [f"{request.label}: {problem}" for problem in _flaws(request, outputs)]
    return ServerCheck(problems, latencies_ms)


def _flaws(request: Request, outputs: Tensors) -> Iterator[str]:
    """Yield the problems of an answer."""
    expected = request.expected
    k = expected.get(_IDS, np.zeros((0, 0))).shape[1]
    rows = zip(outputs.get(_IDS, ()), outputs.get(_SCORES, ()), strict=False)
    for ids, scores in rows:
        found = [name for name in ids.tolist() if name]
        if len(found) < request.least:
            yield f"{len(found)} candidates instead of {request.least} to {k}"
        if len(set(found)) != len(found):
            yield "the answer has a candidate twice"
        if not np.all(np.isfinite(scores)):
            yield "a score is not a finite number"
        if np.any(np.diff(scores) > _TOLERANCE):
            yield "the candidates are not sorted by score"
        if request.forbidden & set(found):
            yield "the answer has a candidate that must not be in it"
    different = outputs.keys() ^ expected.keys() or _different_outputs(outputs, expected)
    if different:
        yield f"the server's {', '.join(sorted(different))} differ from the model's"


def _different_outputs(actual: Tensors, wanted: Tensors) -> set[str]:
    """Return the outputs whose values differ, of answers with the same outputs.

    IDs are compared as sets, because candidates with equal scores may come in any order, and the
    last of k may be another one. The other outputs except `scores` are compared candidate by
    candidate.
    """
    different = {name for name in wanted if actual[name].shape != wanted[name].shape}
    if different or _IDS not in wanted:
        return different or {name for name in wanted if not _are_close(actual[name], wanted[name])}
    if not _are_close(actual[_SCORES], wanted[_SCORES]):
        different.add(_SCORES)
    for row, ids in enumerate(wanted[_IDS].tolist()):
        nth = {name: number for number, name in enumerate(actual[_IDS][row].tolist())}
        common = [number for number, name in enumerate(ids) if name in nth]
        same = [nth[ids[number]] for number in common]
        if len({*ids} - nth.keys()) > 1:
            different.add(_IDS)
        different |= {
            name
            for name in wanted.keys() - {_IDS, _SCORES}
            if not _are_close(actual[name][row, same], wanted[name][row, common])
        }
    return different


def _are_close(actual: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> bool:
    if wanted.dtype.kind != "f":
        return bool(np.array_equal(actual, wanted))
    return bool(np.allclose(actual, wanted, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))
