"""The messages of the TensorFlow Serving API, without TensorFlow.

The official classes (`tensorflow_serving.apis`) need `tensorflow`, whose import takes seconds and
whose installation takes more than 1 GB. A client needs only about twenty small messages. This
module declares them in the syntax of the original .proto files, with only the fields that clients
use. They are in a separate descriptor pool, so that both sets of classes can be used in one
process. A test compares each field with the official descriptors.

Enums are declared as int32, which has the same encoding.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "retrieval_wire"

# Sources: tensorflow/core/framework/{tensor,tensor_shape}.proto,
# tensorflow/core/protobuf/meta_graph.proto, google/protobuf/{any,wrappers}.proto and
# tensorflow_serving/{apis/*,util/status}.proto.
DECLARATIONS = {
    "Dim": "int64 size = 1; string name = 2;",
    "TensorShapeProto": "repeated Dim dim = 2; bool unknown_rank = 3;",
    "TensorProto": """
        int32 dtype = 1;
        TensorShapeProto tensor_shape = 2;
        bytes tensor_content = 4;
        repeated float float_val = 5;
        repeated double double_val = 6;
        repeated int32 int_val = 7;
        repeated bytes string_val = 8;
        repeated int64 int64_val = 10;
        repeated bool bool_val = 11;
    """,
    "TensorInfo": "string name = 1; int32 dtype = 2; TensorShapeProto tensor_shape = 3;",
    "SignatureDef": """
        map<string, TensorInfo> inputs = 1;
        map<string, TensorInfo> outputs = 2;
        string method_name = 3;
        map<string, TensorProto> defaults = 4;
    """,
    "SignatureDefMap": "map<string, SignatureDef> signature_def = 1;",
    "Int64Value": "int64 value = 1;",
    "Any": "string type_url = 1; bytes value = 2;",
    "ModelSpec": """
        string name = 1;
        Int64Value version = 2;
        string signature_name = 3;
        string version_label = 4;
    """,
    "PredictRequest": """
        ModelSpec model_spec = 1;
        map<string, TensorProto> inputs = 2;
        repeated string output_filter = 3;
    """,
    "PredictResponse": "map<string, TensorProto> outputs = 1; ModelSpec model_spec = 2;",
    "GetModelMetadataRequest": "ModelSpec model_spec = 1; repeated string metadata_field = 2;",
    "GetModelMetadataResponse": "ModelSpec model_spec = 1; map<string, Any> metadata = 2;",
    "GetModelStatusRequest": "ModelSpec model_spec = 1;",
    "StatusProto": "int32 error_code = 1; string error_message = 2;",
    "ModelVersionStatus": "int64 version = 1; int32 state = 2; StatusProto status = 3;",
    "GetModelStatusResponse": "repeated ModelVersionStatus model_version_status = 1;",
    # In the original, `config` is a ModelServerConfig. Here the caller serializes it.
    "ReloadConfigRequest": "bytes config = 1; repeated string metric_names = 2;",
    "ReloadConfigResponse": "StatusProto status = 1;",
}

_FIELD = re.compile(
    r"(?P<repeated>repeated )?(?:map<string, (?P<item>\w+)>|(?P<type>\w+)) "
    r"(?P<name>\w+) = (?P<number>\d+)"
)
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int64": _Field.TYPE_INT64,
    "int32": _Field.TYPE_INT32,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}


def _build_classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3"
    )
    for message_name, declaration in DECLARATIONS.items():
        message = file.message_type.add(name=message_name)
        for field in declaration.split(";"):
            if field.strip():
                _add_field(message, field.strip())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    if hasattr(message_factory, "GetMessageClass"):
        make_class: Any = message_factory.GetMessageClass
    else:  # protobuf before 4.22; the type stubs describe later versions
        make_class = message_factory.MessageFactory(pool).GetPrototype  # type: ignore[attr-defined]
    return {
        name: make_class(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in DECLARATIONS
    }


def _add_field(message: descriptor_pb2.DescriptorProto, declaration: str) -> None:
    match = _FIELD.fullmatch(declaration)
    if match is None:
        raise ValueError(f"invalid declaration of a field of {message.name}: {declaration!r}")
    field = message.field.add(name=match["name"], number=int(match["number"]))
    field.label = _Field.LABEL_OPTIONAL
    if match["item"]:
        entry_name = "".join(word.title() for word in match["name"].split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(entry, "string key = 1")
        _add_field(entry, f"{match['item']} value = 2")
        field.label = _Field.LABEL_REPEATED
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{message.name}.{entry_name}"
        return
    if match["repeated"]:
        field.label = _Field.LABEL_REPEATED
    if match["type"] in _SCALARS:
        field.type = _SCALARS[match["type"]]
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{match['type']}"


_CLASSES = _build_classes()

TensorProto: Any = _CLASSES["TensorProto"]
SignatureDefMap: Any = _CLASSES["SignatureDefMap"]
ModelSpec: Any = _CLASSES["ModelSpec"]
PredictRequest: Any = _CLASSES["PredictRequest"]
PredictResponse: Any = _CLASSES["PredictResponse"]
GetModelMetadataRequest: Any = _CLASSES["GetModelMetadataRequest"]
GetModelMetadataResponse: Any = _CLASSES["GetModelMetadataResponse"]
GetModelStatusRequest: Any = _CLASSES["GetModelStatusRequest"]
GetModelStatusResponse: Any = _CLASSES["GetModelStatusResponse"]
ReloadConfigRequest: Any = _CLASSES["ReloadConfigRequest"]
ReloadConfigResponse: Any = _CLASSES["ReloadConfigResponse"]

Message = Any
"""An instance of one of these classes."""

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD_CONFIG = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"

METHODS = {
    PREDICT: (PredictRequest, PredictResponse),
    GET_MODEL_METADATA: (GetModelMetadataRequest, GetModelMetadataResponse),
    GET_MODEL_STATUS: (GetModelStatusRequest, GetModelStatusResponse),
    RELOAD_CONFIG: (ReloadConfigRequest, ReloadConfigResponse),
}
"""The classes of request and response by the path of the method."""
