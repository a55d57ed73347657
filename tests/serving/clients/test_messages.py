from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf.descriptor import FieldDescriptor
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
    status_pb2,
)

from serving.clients import messages, messages_pb2

ROOT = Path(__file__).resolve().parents[3]

SOURCES: tuple[Any, ...] = (
    meta_graph_pb2, tensor_pb2, tensor_shape_pb2, get_model_metadata_pb2, get_model_status_pb2,
    model_management_pb2, model_pb2, predict_pb2, status_pb2,
)  # fmt: skip


def official(name: str) -> Any:
    """Return TensorFlow's or TensorFlow Serving's message of a name."""
    return next(getattr(source, name) for source in SOURCES if hasattr(source, name))


@pytest.mark.parametrize("name", messages_pb2.DESCRIPTOR.message_types_by_name)
def test_fields_are_those_of_the_official_message(name: str) -> None:
    assert_same_message(getattr(messages_pb2, name).DESCRIPTOR, official(name).DESCRIPTOR)


def assert_same_message(ours: Any, theirs: Any) -> None:
    assert ours.name == theirs.name
    assert ours.fields
    for field in ours.fields:
        assert_same_field(field, theirs.fields_by_number[field.number])


def assert_same_field(ours: Any, theirs: Any) -> None:
    assert (ours.name, ours.label) == (theirs.name, theirs.label)
    if ours.name == "config":  # the caller serializes it
        assert (ours.type, theirs.type) == (
            FieldDescriptor.TYPE_BYTES,
            FieldDescriptor.TYPE_MESSAGE,
        )
        return
    assert ours.type == theirs.type
    if ours.enum_type is not None:
        for value in ours.enum_type.values:
            assert theirs.enum_type.values_by_name[value.name].number == value.number
    if ours.message_type is not None:
        assert_same_message(ours.message_type, theirs.message_type)


def test_method_paths_are_the_official_ones() -> None:
    predictions = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
    models = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
    paths = {
        f"/{service.full_name}/{method.name}"
        for service in (predictions, models)
        for method in service.methods
    }
    used = {
        messages.PREDICT,
        messages.GET_MODEL_METADATA,
        messages.GET_MODEL_STATUS,
        messages.RELOAD_CONFIG,
    }
    assert used <= paths


def test_both_sets_of_classes_live_in_one_process() -> None:
    theirs = predict_pb2.PredictRequest()
    theirs.inputs["user_id"].CopyFrom(tf.make_tensor_proto(["ü", ""]))
    ours = messages_pb2.PredictRequest.FromString(theirs.SerializeToString())
    assert list(ours.inputs["user_id"].string_val) == ["ü".encode(), b""]
    assert predict_pb2.PredictRequest.FromString(ours.SerializeToString()) == theirs


def test_clients_and_load_tests_import_neither_tensorflow_nor_numpy() -> None:
    script = (
        "import sys, serving.clients, serving.launcher, serving.loadtest\n"
        "print([n for n in ('tensorflow', 'numpy', 'tensorflow_serving') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
