"""Metadata, status, reload and the refused gRPC methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    regression_pb2,
)

from tests.serving.server.grpc_calls import ALL_INPUTS, Stubs, check_error


@pytest.fixture(scope="module")
def stubs(server: Any) -> Iterator[Stubs]:
    with grpc.insecure_channel(server.grpc_target) as channel:
        yield Stubs(channel)


def metadata_request(fields: list[str], name: str = "retrieval") -> Any:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = name
    return request


INVALID, NOT_FOUND = "INVALID_ARGUMENT", "NOT_FOUND"
METADATA_ERRORS = {
    "no model spec": (
        lambda: get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]),
        INVALID,
        "Missing ModelSpec",
    ),
    "no field": (lambda: metadata_request([]), INVALID, "at least one metadata_field"),
    "unknown field": (
        lambda: metadata_request(["signature_def", "x"]),
        INVALID,
        "Metadata field x is not supported",
    ),
    "unknown model": (lambda: metadata_request(["signature_def"], "foo"), NOT_FOUND, "Latest(foo)"),
}


@pytest.mark.parametrize("case", METADATA_ERRORS)
def test_metadata_refuses(stubs: Stubs, case: str) -> None:
    make_request, code, text = METADATA_ERRORS[case]
    check_error(lambda: stubs.prediction.GetModelMetadata(make_request(), timeout=10), code, text)


def test_metadata_lists_every_signature(stubs: Stubs) -> None:
    response = stubs.prediction.GetModelMetadata(metadata_request(["signature_def"]), timeout=10)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def) == {
        "__saved_model_init_op", "embed_candidate", "embed_query", "odd", "recommend_excluding",
        "repeat", "scalars", "serving_default", "similar_candidates",
    }  # fmt: skip
    default = signatures.signature_def["serving_default"]
    assert sorted(default.defaults) == sorted(default.inputs) == ALL_INPUTS.split(",")
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == ""


def status_request(name: str, version: int | None = None, label: str = "") -> Any:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    return request


STATUS_ERRORS = {
    "no model spec": (get_model_status_pb2.GetModelStatusRequest, INVALID, "Missing ModelSpec"),
    "unknown model": (lambda: status_request("foo"), NOT_FOUND, "any versions of model foo"),
    "unknown version": (
        lambda: status_request("retrieval", 7),
        NOT_FOUND,
        "version 7 of model retrieval",
    ),
}


@pytest.mark.parametrize("case", STATUS_ERRORS)
def test_status_refuses(stubs: Stubs, case: str) -> None:
    make_request, code, text = STATUS_ERRORS[case]
    check_error(lambda: stubs.model.GetModelStatus(make_request(), timeout=10), code, text)


@pytest.mark.parametrize(("version", "label"), [(None, ""), (1, ""), (None, "ignored")])
def test_status_of_an_available_version(stubs: Stubs, version: int | None, label: str) -> None:
    request = status_request("retrieval", version, label)
    (row,) = stubs.model.GetModelStatus(request, timeout=10).model_version_status
    assert (row.version, row.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    assert row.HasField("status")
    assert (row.status.error_code, row.status.error_message) == (0, "")


@pytest.mark.parametrize(
    ("method", "request_class"),
    [
        ("Classify", classification_pb2.ClassificationRequest),
        ("Regress", regression_pb2.RegressionRequest),
        ("MultiInference", inference_pb2.MultiInferenceRequest),
    ],
)
def test_methods_for_examples_are_refused(stubs: Stubs, method: str, request_class: Any) -> None:
    call = getattr(stubs.prediction, method)
    check_error(lambda: call(request_class(), timeout=10), INVALID, f"{method} needs")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "Only ModelConfigList is currently supported"),
        ("custom_model_config {}", "Only ModelConfigList is currently supported"),
        ('model_config_list { config { name: "X" base_path: "p" } }', "absolute path"),
    ],
)
def test_reload_config_refuses(stubs: Stubs, config: str, words: str) -> None:
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(config, request.config)
    check_error(lambda: stubs.model.HandleReloadConfigRequest(request, timeout=10), INVALID, words)
