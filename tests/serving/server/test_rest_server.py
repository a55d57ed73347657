"""Paths, status codes, bodies and connections of the REST API."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.serving.server.rest_calls import PREDICT, Rest, query

SIMILAR = {"signature_name": "similar_candidates", "inputs": ["a"]}


@pytest.fixture(scope="module")
def rest(server: Any) -> Rest:
    return Rest(server.rest_url)


@pytest.mark.parametrize("path", ["/v1/models/retrieval", "/V1/Models/retrieval/versions/1"])
def test_status(rest: Rest, path: str) -> None:
    status, answer = rest.ask("GET", path)
    assert status == 200
    assert json.loads(answer) == {
        "model_version_status": [
            {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }


@pytest.mark.parametrize(
    "path", ["/v1/models/retrieval/metadata", "/v1/models/retrieval/versions/1/metadata"]
)
def test_metadata(rest: Rest, path: str) -> None:
    status, answer = rest.ask("GET", path)
    assert status == 200
    content = json.loads(answer)
    assert content["model_spec"] == {"name": "retrieval", "signature_name": "", "version": "1"}
    signatures = content["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "similar_candidates", "__saved_model_init_op"} <= set(signatures)
    assert signatures["embed_candidate"]["inputs"]["year"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": "embed_candidate_year:0",
    }


PATHS = {
    ("POST", "/v1/models/foo:predict"): (404, "Latest(foo)"),
    ("POST", "/v1/models/retrieval/versions/7:predict"): (404, "Specific(retrieval, 7)"),
    ("POST", "/v1/models/retrieval/labels/x:predict"): (400, "label: x"),
    ("POST", "/v1/models/retrieval/versions/99999999999999999999:predict"): (400, "number up to"),
    ("GET", f"/v1/models/retrieval/versions/{'9' * 5000}"): (400, "number up to"),
    ("GET", f"/v1/models/retrieval/versions/{'0' * 5000}7"): (404, "version 7"),
    ("GET", "/v1/models/retrieval/labels/x/metadata"): (400, "label: x"),
    ("POST", "/v1/models/retrieval:PREDICT"): (400, "Malformed request: POST"),
    ("POST", "/v1/models/retrieval"): (400, "Malformed request: POST"),
    ("GET", "/v1/models/retrieval:predict"): (400, "Malformed request: GET"),
    ("GET", "/v1/x"): (400, "Malformed request: GET /v1/x"),
    ("PUT", "/v1/models/retrieval"): (400, "Malformed request: PUT"),
    ("GET", "/v1/models"): (400, "Missing model name"),
    ("GET", "/v1/models/foo"): (404, "model foo"),
    ("GET", "/v1/models/retrieval/versions/7"): (404, "version 7 of model retrieval"),
    ("GET", "/v1/models/foo/metadata"): (404, "Latest(foo)"),
    ("GET", "/"): (404, "Not found"),
    ("POST", "/v1/models/retrieval:classify"): (400, "use Predict"),
    ("POST", "/v1/models/foo:regress"): (400, "use Predict"),
}


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_refused_paths(rest: Rest, method: str, path: str) -> None:
    body = {"instances": [query()]} if method == "POST" else None
    status, answer = rest.ask(method, path, body)
    expected_status, words = PATHS[method, path]
    assert status == expected_status
    assert words in json.loads(answer)["error"]


ZIPPED = gzip.compress(json.dumps(SIMILAR).encode())


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_a_gzip_body_is_read(rest: Rest, encoding: str) -> None:
    status, _, content = rest.ask_raw("POST", PREDICT, ZIPPED, **{"Content-Encoding": encoding})
    assert (status, content.decode()) == rest.ask("POST", PREDICT, SIMILAR)


@pytest.mark.parametrize(
    ("body", "encoding", "expected"),
    [
        (b"not gzip", "gzip", 400),
        (ZIPPED[:-12], "gzip", 400),
        (gzip.compress(b"{}") + b"x", "gzip", 400),
        (b"x", "br", 415),
    ],
    ids=["not gzip", "truncated", "trailing bytes", "another encoding"],
)
def test_a_body_that_cannot_be_decoded_is_refused(
    rest: Rest, body: bytes, encoding: str, expected: int
) -> None:
    status, _, content = rest.ask_raw("POST", PREDICT, body, **{"Content-Encoding": encoding})
    assert status == expected
    assert "gzip" in json.loads(content)["error"]


def test_one_connection_serves_many_requests_also_after_errors(server: Any) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.rest_url).netloc, timeout=10)
    statuses = []
    for path in ("/v1/models/retrieval", "/v1/x", "/v1/models/retrieval"):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        statuses.append((response.status, connection.sock is not None))
    connection.close()
    assert statuses == [(200, True), (400, True), (200, True)]


@pytest.mark.parametrize(
    "headers",
    [
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: +3",
        "Content-Length: " + "9" * 5000,
        "Content-Length : 3",
        "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0",
    ],
)
def test_a_body_of_ambiguous_length_ends_the_connection(server: Any, headers: str) -> None:
    # Otherwise the rest would be read as the next request, perhaps of another client.
    host, port = urlsplit(server.rest_url).netloc.split(":")
    hidden = b"GET /v1/models/retrieval HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode() + hidden
        )
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"AVAILABLE" not in received


def test_chunked_bodies_are_read(rest: Rest) -> None:
    body = json.dumps(SIMILAR).encode()
    chunks = iter([body[:5], body[5:]])
    assert rest.ask_raw("POST", PREDICT, chunks, **{"Transfer-Encoding": "chunked"})[0] == 200
