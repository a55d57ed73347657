"""ML Metadata on PostgreSQL, with three of its limits kept from whoever reads and writes.

ML Metadata 1.17 quotes a string that holds a backslash so that PostgreSQL finds a syntax error, and
it indexes whole values of properties, of which PostgreSQL refuses those above 2,704 bytes. So no
backslash is written, and a long value is written in parts; what is read is as it was. JSON within
JSON, and letters that JSON escapes, need the one; settings and summaries of runs the other. And
what is asked for by ids comes in their order.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf.message import Message
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

# FULLWIDTH REVERSE SOLIDUS: rare, so that nearly all text stands in the database as it is.
_MARK = "\N{FULLWIDTH REVERSE SOLIDUS}"
_WRITTEN_MARK, _WRITTEN_BACKSLASH = f"{_MARK}f", f"{_MARK}b"
# Of at most 4 bytes each; the name of the property stands in the index beside them.
_PART_CHARACTERS = 500
_NODES = (metadata_store_pb2.Artifact, metadata_store_pb2.Execution, metadata_store_pb2.Context)
_MAPS = ("properties", "custom_properties")
# What a method answers, and by which ids it was asked.
_BY_ID = {
    "GetArtifactsByID": ("artifacts", "artifact_ids"),
    "GetExecutionsByID": ("executions", "execution_ids"),
    "GetContextsByID": ("contexts", "context_ids"),
}


def adapted(store: MetadataStore, connection: metadata_store_pb2.ConnectionConfig) -> MetadataStore:
    """Returns a store that takes every string; of SQLite and MySQL it is the one given."""
    return PostgresqlStore(store) if connection.HasField("postgresql") else store


class PostgresqlStore(MetadataStore):  # type: ignore[misc]
    """Takes strings of any length and content.

    Queries given as text (`filter_query`) go through as they are, and so does an update of single
    properties (`field_mask_paths`): neither finds a backslash or a part.

    Args:
        store: Whose connection it uses.
    """

    def __init__(self, store: MetadataStore) -> None:
        # A second connection would be one more of the server's.
        self.__dict__.update(store.__dict__)

    def _call(
        self, method_name: str, request: Any, response: Any, extra_options: Any = None
    ) -> None:
        # Every public method comes through here, with a request that it may use again.
        written = type(request)()
        written.CopyFrom(request)
        encode(written)
        super()._call(method_name, written, response, extra_options)
        decode(response)
        if method_name in _BY_ID:
            # PostgreSQL answers in any order. TFX pairs the outputs that it finds in the cache with
            # their names by their places, which SQLite keeps.
            answered, asked = _BY_ID[method_name]
            places = {number: place for place, number in enumerate(getattr(request, asked))}
            getattr(response, answered).sort(key=lambda node: places[node.id])


def encode(message: Message) -> None:
    """Takes the backslashes out of all strings of a message, and parts long properties."""
    _change_strings(
        message,
        lambda text: text.replace(_MARK, _WRITTEN_MARK).replace("\\", _WRITTEN_BACKSLASH),
    )
    _change_nodes(message, _part)


def decode(message: Message) -> None:
    """Undoes `encode`."""
    _change_nodes(message, _join)
    _change_strings(
        message,
        lambda text: text.replace(_WRITTEN_BACKSLASH, "\\").replace(_WRITTEN_MARK, _MARK),
    )


def _children(message: Message) -> list[Message]:
    found: list[Message] = []
    for _, value in message.ListFields():
        if isinstance(value, Message):
            found.append(value)
        elif isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
            several = value.values() if isinstance(value, Mapping) else value
            found.extend(child for child in several if isinstance(child, Message))
    return found


def _change_strings(message: Message, change: Callable[[str], str]) -> None:
    for field, value in message.ListFields():
        if field.type != field.TYPE_STRING or field.name == "filter_query":
            continue
        if isinstance(value, str):
            setattr(message, field.name, change(value))
        else:
            value[:] = [change(text) for text in value]
    for child in _children(message):
        _change_strings(child, change)


def _change_nodes(message: Message, change: Callable[[Any], None]) -> None:
    if isinstance(message, _NODES):
        change(message)
        return
    for child in _children(message):
        _change_nodes(child, change)


def _part(node: Any) -> None:
    parts: dict[str, str] = {}
    for kind in _MAPS:
        for name, value in getattr(node, kind).items():
            text = value.string_value
            if len(text) > _PART_CHARACTERS:
                value.string_value = text[:_PART_CHARACTERS]
                for start in range(_PART_CHARACTERS, len(text), _PART_CHARACTERS):
                    key = f"{kind}{_MARK}{name}{_MARK}{start}"
                    parts[key] = text[start : start + _PART_CHARACTERS]
    for key, text in parts.items():
        node.custom_properties[key].string_value = text


def _join(node: Any) -> None:
    parts: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for key in [key for key in node.custom_properties if _MARK in key]:
        kind, _, rest = key.partition(_MARK)
        name, _, start = rest.rpartition(_MARK)
        if kind in _MAPS and start.isdecimal():
            parts[kind, name][int(start)] = node.custom_properties.pop(key).string_value
    for (kind, name), texts in parts.items():
        getattr(node, kind)[name].string_value += "".join(texts[start] for start in sorted(texts))
