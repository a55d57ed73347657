"""What is written to PostgreSQL, without one."""

import pytest
from ml_metadata.proto import metadata_store_pb2, metadata_store_service_pb2

from pipeline.runs.postgresql_store import decode, encode

Artifact = metadata_store_pb2.Artifact


def strings(artifact: "metadata_store_pb2.Artifact") -> list[str]:
    maps = (artifact.properties, artifact.custom_properties)
    return [artifact.uri, artifact.name] + [v.string_value for m in maps for v in m.values()]


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "",
        'é 😀 it\'s "q"',
        "\\",
        "a\\b\\\\",
        "＼",
        "＼b",
        "＼f\\＼",
        "\\f\\b" * 3000,
        "é" * 501,
    ],
)
def test_no_backslash_and_nothing_long_is_written_and_all_is_read_as_it_was(text: str) -> None:
    artifact = Artifact(id=3, uri=text, name=text)
    artifact.properties["p"].string_value = text
    artifact.properties["n"].int_value = 3
    artifact.custom_properties["p"].string_value = text
    artifact.custom_properties["config"].struct_value["key"] = text
    written = Artifact()
    written.CopyFrom(artifact)
    encode(written)
    assert not any("\\" in found for found in strings(written))
    assert all(len(found) <= 500 for found in strings(written)[2:])
    decode(written)
    assert written == artifact


def test_what_holds_no_backslash_stands_in_the_database_as_it_is() -> None:
    artifact = Artifact(uri="s3://é/%5C ~")
    artifact.properties["p"].string_value = "x" * 500
    written = Artifact()
    written.CopyFrom(artifact)
    encode(written)
    assert written == artifact


def test_whatever_a_request_or_an_answer_holds_is_reached() -> None:
    request = metadata_store_service_pb2.PutExecutionRequest()
    request.execution.custom_properties["c"].string_value = "\\" * 600
    request.artifact_event_pairs.add().artifact.uri = "a\\b"
    request.contexts.add().name = "a\\b"
    request.contexts.add().properties["summary"].string_value = "\\" * 600
    written = metadata_store_service_pb2.PutExecutionRequest()
    written.CopyFrom(request)
    encode(written)
    assert b"\\" not in written.SerializeToString()
    assert len(written.execution.custom_properties) == 3
    decode(written)
    assert written == request
    query = metadata_store_service_pb2.GetArtifactsByURIRequest(uris=["a\\b"])
    encode(query)
    assert query.uris == ["a＼bb"]
