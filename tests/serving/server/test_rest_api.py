"""The REST answers, as TensorFlow Serving r2.16 writes them, and the connections they come on."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.serving.server.rest_calls import PREDICT, Rest, columns, query


@pytest.fixture(scope="module")
def rest(server: Any) -> Rest:
    return Rest(server.rest_url)


GOLDEN_PREDICTIONS: dict[str, Any] = {
    "rows_of_several_outputs": {"instances": [query(history=["c"]), query("ü→1", history=[""])]},
    "columns_of_several_outputs": {"inputs": columns(query(age=0.1), query("ü→1"))},
    "rows_of_one_output": {"signature_name": "embed_query", "instances": [query(), query("?")]},
    "columns_of_one_output": {"signature_name": "embed_query", "inputs": columns(query())},
    "plain_rows": {"signature_name": "similar_candidates", "instances": ["a", {"b64": "Yg=="}]},
    "plain_columns": {"signature_name": "similar_candidates", "inputs": ["a"]},
    "empty_columns": {"signature_name": "similar_candidates", "inputs": []},
    "bytes_and_odd_numbers": {"signature_name": "odd", "inputs": ["ü"]},
    "scalars": {"signature_name": "scalars", "inputs": ["ü"]},
    "integers": {"signature_name": "repeat", "inputs": {"text": ['\x1f"\\/\n'], "count": [2]}},
}


@pytest.mark.parametrize("name", GOLDEN_PREDICTIONS)
def test_predictions_look_like_tensorflow_servings(
    rest: Rest, golden: Callable[[str, str], None], name: str
) -> None:
    status, answer = rest.ask("POST", PREDICT, GOLDEN_PREDICTIONS[name])
    assert status == 200
    golden(f"{name}.json", answer)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("status", "/v1/models/retrieval"),
        ("status", "/V1/Models/retrieval/versions/1"),
        ("metadata", "/v1/models/retrieval/metadata"),
        ("metadata", "/v1/models/retrieval/versions/1/metadata"),
    ],
)
def test_descriptions_look_like_tensorflow_servings(
    rest: Rest, golden: Callable[[str, str], None], name: str, path: str
) -> None:
    status, answer = rest.ask("GET", path)
    assert status == 200
    golden(f"{name}.json", answer)


def test_bytes_that_are_no_utf8_pass_through(rest: Rest) -> None:
    body = b'{"signature_name": "repeat", "inputs": {"text": ["\xff"], "count": [1]}}'
    status, _, content = rest.ask_raw("POST", PREDICT, body)
    assert status == 200
    assert b'"\xff"' in content


def test_a_byte_order_mark_is_skipped(rest: Rest) -> None:
    body = b'\xef\xbb\xbf{"signature_name": "similar_candidates", "inputs": ["a"]}'
    assert rest.ask("POST", PREDICT, body)[0] == 200


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
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: +3",
        "Content-Length: " + "9" * 5000,
        "Content-Length : 3",
        "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0",
    ],
)
def test_a_body_of_doubtful_length_ends_the_connection(server: Any, headers: str) -> None:
    # Else what is left of it would be taken for the next request, perhaps somebody else's.
    host, port = urlsplit(server.rest_url).netloc.split(":")
    hidden = b"GET /v1/models/retrieval HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode() + hidden
        )
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(tuple(b"HTTP/1.1 %d " % code for code in (400, 413, 501)))
    assert received.count(b"HTTP/1.1 ") == 1


def test_chunked_bodies_are_read(server: Any) -> None:
    body = json.dumps({"signature_name": "similar_candidates", "instances": ["a"]}).encode()
    connection = http.client.HTTPConnection(urlsplit(server.rest_url).netloc, timeout=10)
    connection.request("POST", PREDICT, iter([body[:5], body[5:]]), encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
