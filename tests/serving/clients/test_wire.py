from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf import any_pb2, wrappers_pb2
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

from serving.clients import wire

ROOT = Path(__file__).resolve().parents[3]

SOURCES: tuple[Any, ...] = (
    any_pb2, wrappers_pb2, meta_graph_pb2, tensor_pb2, tensor_shape_pb2,
    tensor_shape_pb2.TensorShapeProto, get_model_metadata_pb2, get_model_status_pb2,
    model_management_pb2, model_pb2, predict_pb2, status_pb2,
)  # fmt: skip


def official(name: str) -> Any:
    """Return TensorFlow's or TensorFlow Serving's message of a name."""
    return next(getattr(source, name) for source in SOURCES if hasattr(source, name))


@pytest.mark.parametrize("name", wire.DECLARATIONS)
def test_fields_are_those_of_the_official_message(name: str) -> None:
    ours = wire._CLASSES[name].DESCRIPTOR
    assert ours.fields
    for field in ours.fields:
        assert_same_field(field, official(name).DESCRIPTOR.fields_by_number[field.number])


def assert_same_field(ours: Any, theirs: Any) -> None:
    assert (ours.name, ours.label) == (theirs.name, theirs.label)
    # Enums are declared as int32 and the serialized config as bytes, with the same encoding.
    alike = {FieldDescriptor.TYPE_ENUM: FieldDescriptor.TYPE_INT32}
    if ours.name == "config":
        alike[FieldDescriptor.TYPE_MESSAGE] = FieldDescriptor.TYPE_BYTES
    assert ours.type == alike.get(theirs.type, theirs.type)
    if ours.message_type is None:
        return
    if ours.message_type.GetOptions().map_entry:
        for parts in zip(ours.message_type.fields, theirs.message_type.fields, strict=True):
            assert_same_field(*parts)
    else:
        assert ours.message_type.name == theirs.message_type.name


def test_method_paths_are_the_official_ones() -> None:
    predictions = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
    models = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
    paths = {
        f"/{service.full_name}/{method.name}"
        for service in (predictions, models)
        for method in service.methods
    }
    used = {wire.PREDICT, wire.GET_MODEL_METADATA, wire.GET_MODEL_STATUS, wire.RELOAD_CONFIG}
    assert used <= paths


def test_both_sets_of_classes_live_in_one_process() -> None:
    theirs = predict_pb2.PredictRequest()
    theirs.inputs["user_id"].CopyFrom(tf.make_tensor_proto(["ü", ""]))
    ours = wire.PredictRequest.FromString(theirs.SerializeToString())
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
