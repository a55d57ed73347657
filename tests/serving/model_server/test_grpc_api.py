"""The gRPC answers, case by case, with the codes and texts of TensorFlow Serving r2.16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

NAN = float("nan")
ALL_INPUTS = "age,country,history,title,user_id"


class Stubs:
    def __init__(self, channel: grpc.Channel) -> None:
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(channel)

    def predict(self, name: str = "retrieval", **options: Any) -> Any:
        return self.prediction.Predict(predict_request(name, **options), timeout=10)


@pytest.fixture(scope="module")
def stubs(server: Any) -> Iterator[Stubs]:
    with grpc.insecure_channel(server.grpc_target) as channel:
        yield Stubs(channel)


def predict_request(
    name: str = "retrieval",
    *,
    signature: str = "",
    version: int | None = None,
    label: str = "",
    output_filter: list[str] | None = None,
    **inputs: Any,
) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(output_filter=output_filter or [])
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    for alias, value in inputs.items():
        proto = value if hasattr(value, "dtype") and hasattr(value, "tensor_shape") else None
        request.inputs[alias].CopyFrom(proto or tf.make_tensor_proto(value))
    return request


def contradictory_tensor() -> Any:
    proto = tf.make_tensor_proto(["u1"])
    proto.tensor_shape.dim[0].size = -1
    return proto


def similar(**options: Any) -> predict_pb2.PredictRequest:
    return predict_request(signature="similar_candidates", **options)


PREDICT_ERRORS = {
    "no model spec": (
        lambda: predict_pb2.PredictRequest(),
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    ),
    "empty name": (
        lambda: predict_request(""),
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    ),
    "unknown model": (
        lambda: predict_request("foo"),
        "NOT_FOUND",
        "Servable not found for request: Latest(foo)",
    ),
    "unknown model and version": (
        lambda: predict_request("foo", version=7),
        "NOT_FOUND",
        "Servable not found for request: Specific(foo, 7)",
    ),
    "unknown version": (
        lambda: predict_request(version=7),
        "NOT_FOUND",
        "Servable not found for request: Specific(retrieval, 7)",
    ),
    "unknown label": (
        lambda: predict_request(label="x"),
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: x",
    ),
    "unknown signature": (
        lambda: predict_request(signature="x"),
        "FAILED_PRECONDITION",
        'Serving signature key "x" not found.',
    ),
    "no input": (
        lambda: similar(),
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({movie_id}). Sent extra: {}. "
        "Missing but required: {movie_id}.",
    ),
    "too many inputs": (
        lambda: similar(movie_id=["a"], x=["b"], w=["c"]),
        "INVALID_ARGUMENT",
        "input size does not match signature: 3!=1 len({movie_id,w,x}) != len({movie_id}). "
        "Sent extra: {w,x}. Missing but required: {}.",
    ),
    "wrong name": (
        lambda: similar(x=["a"]),
        "INVALID_ARGUMENT",
        "Signature input alias: movie_id(feed name: similar_candidates_movie_id:0) not found in "
        "request and no default value provided. Inputs expected to be in the request {x}, or "
        "default input alias set: ",
    ),
    "wrong name beside defaults": (
        lambda: predict_request(user_id=["u1"], x=["a"]),
        "INVALID_ARGUMENT",
        "Inputs contains invalid name. Used request inputs: user_id, request input: user_id,x",
    ),
    "more inputs than the signature, defaults or not": (
        lambda: predict_request(**{name: ["x"] for name in "abcdef"}),
        "INVALID_ARGUMENT",
        f"input size does not match signature: 6!=5 len({{a,b,c,d,e,f}}) != len({{{ALL_INPUTS}}}). "
        f"Sent extra: {{a,b,c,d,e,f}}. Missing but required: {{{ALL_INPUTS}}}.",
    ),
    "tensor that contradicts itself": (
        lambda: similar(movie_id=contradictory_tensor()),
        "INVALID_ARGUMENT",
        "tensor parsing error: movie_id",
    ),
    "tensor without a type": (
        lambda: similar(movie_id=tensor_pb2.TensorProto()),
        "INVALID_ARGUMENT",
        "tensor parsing error: movie_id",
    ),
    "unknown output": (
        lambda: similar(movie_id=["a"], output_filter=["x"]),
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: x Outputs expected to be in the set "
        "{candidate_ids,scores}.",
    ),
    "output twice": (
        lambda: similar(movie_id=["a"], output_filter=["scores", "scores"]),
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: scores",
    ),
    "wrong dtype": (
        lambda: similar(movie_id=np.float32([1])),
        "INVALID_ARGUMENT",
        "Expects arg[0] to be string but float is provided",
    ),
    "wrong dtype of a later input": (
        # Feeds in the order of their names: age, country, history, title, user_id.
        lambda: predict_request(user_id=["u1"], history=np.int64([[1]])),
        "INVALID_ARGUMENT",
        "Expects arg[2] to be string but int64 is provided",
    ),
}


@pytest.mark.parametrize("case", PREDICT_ERRORS)
def test_predict_refuses(stubs: Stubs, case: str) -> None:
    make_request, code, text = PREDICT_ERRORS[case]
    check_error(lambda: stubs.prediction.Predict(make_request(), timeout=10), code, text)


def check_error(call: Callable[[], Any], code: str, text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert (caught.value.code().name, caught.value.details()) == (code, text)


def test_wrong_rank_is_the_models_own_error(stubs: Stubs) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.predict(user_id=["u1"], history=["a"])
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "Index out of range using input dim 1; input has only 1 dims" in caught.value.details()


def test_long_error_texts_are_cut(stubs: Stubs) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.predict(signature="ü" * 1000)
    details = caught.value.details()
    assert details.endswith("...TRUNCATED")
    assert len(details.removesuffix("...TRUNCATED").encode()) in (1023, 1024)


def test_answers_with_typed_fields_and_the_full_model_spec(stubs: Stubs) -> None:
    response = stubs.predict(user_id=["u1", "ü→1"], history=[["c", ""], ["", ""]])

    ids, scores = response.outputs["candidate_ids"], response.outputs["scores"]
    # u1 scores a..d 1, 2, 3, 4 and the last 0.5; c is in the history and loses 10.
    assert [value.decode() for value in ids.string_val] == ["d", "b", "a", "ε→漢", "a", "b"]
    assert list(scores.float_val) == [4.0, 2.0, 1.0, 9.75, 0.25, 0.0]
    assert [dim.size for dim in ids.tensor_shape.dim] == [2, 3]
    assert not scores.tensor_content
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == (
        "retrieval",
        "serving_default",
        1,
    )


def test_every_input_may_be_left_to_its_default(stubs: Stubs) -> None:
    scores = stubs.predict().outputs["scores"]
    assert list(scores.float_val) == [5.0, 4.0, 3.0]


def test_inputs_given_and_defaulted_mix(stubs: Stubs) -> None:
    scores = stubs.predict(user_id=["u1"], age=np.float32([100])).outputs["scores"]
    assert list(scores.float_val) == [104.0, 103.0, 102.0]


def test_a_version_may_be_named(stubs: Stubs) -> None:
    assert stubs.predict(version=1).model_spec.version.value == 1


def test_excluded_candidates_do_not_come_back(stubs: Stubs) -> None:
    response = stubs.predict(
        signature="recommend_excluding", user_id=["u1"], exclude=[["d", "c", ""]]
    )
    assert list(response.outputs["candidate_ids"].string_val[:2]) == [b"b", b"a"]


def test_outputs_of_rank_0(stubs: Stubs) -> None:
    outputs = stubs.predict(signature="scalars", movie_id=["ü"]).outputs
    assert list(outputs["first"].string_val) == ["ü".encode()]
    assert list(outputs["half"].float_val) == [0.5]
    assert not outputs["half"].tensor_shape.dim


def test_output_filter_selects(stubs: Stubs) -> None:
    response = stubs.predict(user_id=["u1"], output_filter=["scores"])
    assert list(response.outputs) == ["scores"]


def test_empty_batch_is_answered_with_empty_tensors(stubs: Stubs) -> None:
    empty = tf.make_tensor_proto([], tf.string)
    response = stubs.predict(signature="similar_candidates", movie_id=empty)
    for output in response.outputs.values():
        assert [dim.size for dim in output.tensor_shape.dim] == [0, 3]


def test_float_inputs_come_as_values_or_as_content(stubs: Stubs) -> None:
    values = tf.make_tensor_proto(np.float32([0.5]))
    content = tf.make_tensor_proto(np.float32([0.5]))
    content.ClearField("float_val")
    content.tensor_content = np.float32([0.5]).tobytes()
    answers = [
        list(stubs.predict(user_id=["u1"], age=age).outputs["scores"].float_val)
        for age in (values, content)
    ]
    assert answers == [[4.5, 3.5, 2.5]] * 2


def metadata_request(fields: list[str], name: str = "retrieval") -> Any:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = name
    return request


METADATA_ERRORS = {
    "no model spec": (
        lambda: get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]),
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    ),
    "no field": (
        lambda: metadata_request([]),
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    ),
    "unknown field": (
        lambda: metadata_request(["signature_def", "x"]),
        "INVALID_ARGUMENT",
        "Metadata field x is not supported",
    ),
    "unknown model": (
        lambda: metadata_request(["signature_def"], "foo"),
        "NOT_FOUND",
        "Servable not found for request: Latest(foo)",
    ),
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
        "__saved_model_init_op",
        "embed_candidate",
        "embed_query",
        "odd",
        "recommend_excluding",
        "repeat",
        "scalars",
        "serving_default",
        "similar_candidates",
    }
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
    "no model spec": (
        lambda: get_model_status_pb2.GetModelStatusRequest(),
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    ),
    "unknown model": (
        lambda: status_request("foo"),
        "NOT_FOUND",
        "Could not find any versions of model foo",
    ),
    "unknown version": (
        lambda: status_request("retrieval", 7),
        "NOT_FOUND",
        "Could not find version 7 of model retrieval",
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


def classify(name: str = "retrieval", **spec: Any) -> Any:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.CopyFrom(model_pb2.ModelSpec(name=name, **spec))
    return request


def regress(**spec: Any) -> Any:
    request = regression_pb2.RegressionRequest()
    request.model_spec.CopyFrom(model_pb2.ModelSpec(name="retrieval", **spec))
    return request


def multi_inference(*tasks: tuple[str, str, str]) -> Any:
    request = inference_pb2.MultiInferenceRequest()
    for name, signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.CopyFrom(model_pb2.ModelSpec(name=name, signature_name=signature))
    return request


EXAMPLE_METHOD_ERRORS = {
    "Classify without a model spec": (
        classification_pb2.ClassificationRequest,
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    ),
    "Classify of an unknown model": (
        lambda: classify("foo"),
        "NOT_FOUND",
        "Servable not found for request: Latest(foo)",
    ),
    "Classify with an unknown signature": (
        lambda: classify(signature_name="x"),
        "INVALID_ARGUMENT",
        "No signature was found with the name: x",
    ),
    "Classify with several inputs": (
        classify,
        "INVALID_ARGUMENT",
        "Expected one input Tensor.",
    ),
    "Classify without outputs": (
        lambda: classify(signature_name="__saved_model_init_op"),
        "INVALID_ARGUMENT",
        "Expected one input Tensor.",
    ),
    "Regress without a model spec": (
        regression_pb2.RegressionRequest,
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    ),
    "Regress with several inputs": (regress, "INVALID_ARGUMENT", "Expected one input Tensor."),
    "Regress with several outputs": (
        lambda: regress(signature_name="similar_candidates"),
        "INVALID_ARGUMENT",
        "Expected one output Tensor.",
    ),
    "MultiInference without a task": (
        multi_inference,
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    ),
    "MultiInference without a second name": (
        lambda: multi_inference(("retrieval", "odd", "classify"), ("", "", "classify")),
        "INVALID_ARGUMENT",
        "No classification inputs found in SignatureDef: ",
    ),
    "MultiInference with an unknown signature": (
        lambda: multi_inference(("retrieval", "x", "classify")),
        "INVALID_ARGUMENT",
        "Requested signature not found in model graph: x",
    ),
    "MultiInference with several inputs": (
        lambda: multi_inference(("retrieval", "", "regress")),
        "INVALID_ARGUMENT",
        "Expected one input Tensor.",
    ),
    "MultiInference with an unknown method": (
        lambda: multi_inference(("retrieval", "", "x")),
        "UNIMPLEMENTED",
        "Unsupported signature method_name: tensorflow/serving/x",
    ),
}


@pytest.mark.parametrize("case", EXAMPLE_METHOD_ERRORS)
def test_methods_for_examples_refuse_a_retrieval_model(stubs: Stubs, case: str) -> None:
    make_request, code, text = EXAMPLE_METHOD_ERRORS[case]
    method = getattr(stubs.prediction, case.split()[0])
    with pytest.raises(grpc.RpcError) as caught:
        method(make_request(), timeout=10)
    assert caught.value.code().name == code
    assert caught.value.details().startswith(text)


def test_classify_shows_the_signature_that_has_no_such_input(stubs: Stubs) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.prediction.Classify(classify(signature_name="similar_candidates"), timeout=10)
    details = caught.value.details()
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert details.startswith(
        "No classification inputs found in SignatureDef: inputs {\n"
        '  key: "movie_id"\n  value {\n    name: "similar_candidates_movie_id:0"\n'
    )


RELOAD_ERRORS = {
    "nothing": (
        "",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList "
        "is currently supported",
    ),
    "no list": (
        "custom_model_config {}",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList "
        "is currently supported",
    ),
    "one name twice": (
        'model_config_list { config { name: "X" } config { name: "X" } }',
        "Illegal to list model X multiple times in config list",
    ),
    "relative path": (
        'model_config_list { config { name: "X" base_path: "p" } }',
        "Expected model X to have an absolute path or URI; got base_path()=p",
    ),
}


@pytest.mark.parametrize("case", RELOAD_ERRORS)
def test_reload_config_refuses(stubs: Stubs, case: str) -> None:
    config, text = RELOAD_ERRORS[case]
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(config, request.config)
    check_error(
        lambda: stubs.model.HandleReloadConfigRequest(request, timeout=10),
        "INVALID_ARGUMENT",
        text,
    )
