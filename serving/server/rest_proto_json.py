"""Status and metadata as the JSON that protobuf's C++ library prints."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving.server.model_service import SIGNATURE_DEF_FIELD


def status_json(response: get_model_status_pb2.GetModelStatusResponse) -> bytes:
    """Print a model's status: 64-bit numbers as strings, enums as names, defaults included."""
    return (_print(_to_dict(response)) + "\n").encode()


def metadata_json(response: get_model_metadata_pb2.GetModelMetadataResponse) -> bytes:
    """Print a version's signatures, composed in text as `ToJsonString` in TensorFlow Serving."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[SIGNATURE_DEF_FIELD].Unpack(signatures)
    text = (
        "{\n"
        f'"model_spec":{_print(_to_dict(response.model_spec))}\n,\n'
        f'"metadata": {{"signature_def": {_print(_to_dict(signatures))}\n}}\n'
        "}\n"
    )
    return text.encode()


def _to_dict(message: Message) -> dict[str, Any]:
    as_dict = json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        # Renamed in protobuf 5, which the stubs describe.
        including_default_value_fields=True,  # type: ignore[call-arg]
    )
    descriptor: Any = message.DESCRIPTOR
    return _in_order(as_dict, descriptor)


def _in_order(value: dict[str, Any], descriptor: Descriptor) -> dict[str, Any]:
    """Sort members as the C++ printer does: as declared, but choices and wrappers last.

    It lays out all fields with their defaults first and appends those that had none.
    Maps, which have no order there, are sorted by key.
    """
    ordered: dict[str, Any] = {}
    for field in sorted(descriptor.fields, key=_is_appended):
        if field.name not in value:
            continue
        member, message_type = value[field.name], field.message_type
        if message_type is None or isinstance(member, str):
            ordered[field.name] = member
        elif message_type.GetOptions().map_entry:
            item_type = message_type.fields_by_name["value"].message_type
            ordered[field.name] = {
                key: _in_order(member[key], item_type) if item_type else member[key]
                for key in sorted(member)
            }
        elif isinstance(member, list):
            ordered[field.name] = [_in_order(item, message_type) for item in member]
        else:
            ordered[field.name] = _in_order(member, message_type)
    return ordered


def _is_appended(field: FieldDescriptor) -> bool:
    if field.message_type is None:
        return field.containing_oneof is not None
    return field.message_type.full_name == "google.protobuf.Int64Value"


def _print(value: dict[str, Any]) -> str:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # protobuf escapes these two, so that the text may stand in HTML.
    return text.replace("<", "\\u003c").replace(">", "\\u003e")
