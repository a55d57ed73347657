"""Predictions over REST: the formats of requests and answers, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.server.rest_predict import _to_json, write_json
from tests.serving.server.rest_calls import PREDICT, Rest, columns, query


@pytest.fixture(scope="module")
def rest(server: Any) -> Rest:
    return Rest(server.rest_url)


PREDICTIONS: dict[str, tuple[Any, Any]] = {
    "rows of several outputs": (
        {"instances": [query(history=["c"]), query("ü→1", history=[""])]},
        {
            "predictions": [
                {"candidate_ids": ["d", "b", "a"], "scores": [4.0, 2.0, 1.0]},
                {"candidate_ids": ["ε→漢", "a", "b"], "scores": [9.75, 0.25, 0.0]},
            ]
        },
    ),
    "columns of several outputs": (
        {"inputs": columns(query(age=0.1), query("ü→1"))},
        {
            "outputs": {
                "candidate_ids": [["d", "c", "b"], ["ε→漢", "a", "b"]],
                "scores": [[4.1, 3.1, 2.1], [9.75, 0.25, 0.0]],
            }
        },
    ),
    "rows of one output": (
        {"signature_name": "embed_query", "instances": [query(), query("")]},
        {"predictions": [[1.0, 2.0], [5.0, 4.0]]},
    ),
    "columns of one output": (
        {"signature_name": "embed_query", "inputs": columns(query())},
        {"outputs": [[1.0, 2.0]]},
    ),
    "rows of one input": (
        {"signature_name": "similar_candidates", "instances": ["a", {"b64": "Yg=="}]},
        {
            "predictions": [
                {"candidate_ids": ["a", "b", "c"], "scores": [2.0, -0.33333334, -0.6666667]},
                {"candidate_ids": ["b", "a", "c"], "scores": [1.6666666, 0.0, -0.6666667]},
            ]
        },
    ),
    "no rows": (
        {"signature_name": "similar_candidates", "inputs": []},
        {"outputs": {"candidate_ids": [], "scores": []}},
    ),
    "bytes and NaN": (
        {"signature_name": "odd", "inputs": ["ü"]},
        {"outputs": {"id_bytes": [[{"b64": "w7w="}]], "total": [1.5e6, None, -0.1]}},
    ),
    "scalars": (
        {"signature_name": "scalars", "inputs": ["ü"]},
        {"outputs": {"first": "ü", "half": 0.5}},
    ),
    "integers and escapes": (
        {"signature_name": "repeat", "inputs": {"text": ['\x1f"\\/\n'], "count": [2]}},
        {"outputs": [['\x1f"\\/\n', '\x1f"\\/\n']]},
    ),
}


@pytest.mark.parametrize("case", PREDICTIONS)
def test_answers_in_the_format_of_the_request(rest: Rest, case: str) -> None:
    body, expected = PREDICTIONS[case]
    status, answer = rest.ask("POST", PREDICT, body)
    assert status == 200
    assert json.loads(answer, parse_constant=pytest.fail) == expected


@pytest.mark.parametrize(
    ("inputs", "answer"),
    [
        (b'{"text": ["\xff"], "count": [1]}', {"outputs": [["\ufffd"]]}),
        (
            b'{"text": ["a"], "\xff": 1}',
            {"error": "Missing named input: count in 'inputs' object."},
        ),
    ],
)
def test_answers_are_valid_json_whatever_the_bytes_of_the_request(
    rest: Rest, inputs: bytes, answer: Any
) -> None:
    body = b'{"signature_name": "repeat", "inputs": %s}' % inputs
    assert json.loads(rest.ask_raw("POST", PREDICT, body)[2]) == answer


def test_null_is_a_missing_number(rest: Rest) -> None:
    null, nan = (
        rest.ask("POST", PREDICT, {"inputs": columns(query(age=age))}) for age in (None, math.nan)
    )
    assert null[0] == 200
    assert null == nan


def test_a_byte_order_mark_is_skipped(rest: Rest) -> None:
    body = b'\xef\xbb\xbf{"signature_name": "similar_candidates", "inputs": ["a"]}'
    assert rest.ask("POST", PREDICT, body)[0] == 200


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_floats_read_back_the_same(values: list[float]) -> None:
    array = np.array(values, np.float32)
    read_back = np.array(json.loads(write_json(_to_json("scores", array))), np.float32)
    np.testing.assert_array_equal(read_back, array)


def test_floats_have_their_shortest_form() -> None:
    values = np.float32([0.2, 1.0, 1 / 3, math.inf])
    assert write_json(_to_json("scores", values)) == b"[0.2, 1.0, 0.33333334, null]"


def similar(inputs: Any) -> dict[str, Any]:
    return {"signature_name": "similar_candidates", "inputs": inputs}


# Body, and words of the error.
ERRORS: dict[str, tuple[Any, list[str]]] = {
    "no body": (b"", ["JSON Parse error"]),
    "two documents": (b"{}{}", ["JSON Parse error"]),
    "deep JSON": (b"[" * 50_000, ["JSON Parse error", "nested"]),
    "number of more digits than Python reads": (
        b'{"inputs": %s}' % (b"1" * 5000),
        ["JSON Parse error"],
    ),
    "power beyond double": (b'{"inputs": [-1e999]}', ["JSON Parse error", "1e999"]),
    "not an object": (b"[1]", ["JSON object", "[1]"]),
    "neither key": ({}, ["'inputs'", "'instances'"]),
    "both keys": ({"inputs": [], "instances": []}, ["either 'instances' or 'inputs'"]),
    "signature name is not a string": ({"signature_name": 1}, ["'signature_name'", "string", "1"]),
    "unknown signature": ({"signature_name": "x", "instances": ["a"]}, ['"x" not found']),
    "signature without inputs": (
        {"signature_name": "__saved_model_init_op", "inputs": ["a"]},
        ["'inputs' must be an object"],
    ),
    "instances is not a list": ({"instances": 1}, ["'instances' must be a list", "1"]),
    "no instances": ({"instances": []}, ["'instances'", "at least one row"]),
    "plain instances for several inputs": ({"instances": ["u1"]}, ["history", "row 0", '"u1"']),
    "plain inputs for several inputs": ({"inputs": ["u1"]}, ["'inputs' must be an object"]),
    "row without an input that has a default": (
        {"instances": [{"user_id": "u1"}]},
        ["age, country, history, title, user_id", "row 0"],
    ),
    "row with an unknown input": ({"instances": [query(), query(x=1)]}, ["row 1"]),
    "rows of different sizes": (
        {"instances": [query(history=["a"]), query(history=["a", "b"])]},
        ["Input history", "same shape", '["a"]'],
    ),
    "object among values": (
        {"signature_name": "similar_candidates", "instances": ["a", {"movie_id": "b"}]},
        ["all values or all objects"],
    ),
    "columns without an input that has a default": (
        {"inputs": {"user_id": ["u1"]}},
        ["Missing named input: age"],
    ),
    "number for a string": (similar([1]), ["movie_id", "valid string", "1"]),
    "null": ({"inputs": columns(query(None))}, ["user_id", "valid string", "null"]),
    "fraction for an integer": (
        {"signature_name": "repeat", "inputs": {"text": ["a"], "count": [1.5]}},
        ["count", "valid int64", "1.5"],
    ),
    "integer beyond 64 bits": (
        {"signature_name": "repeat", "inputs": {"text": ["a"], "count": [2**63]}},
        ["count", "valid int64", str(2**63)],
    ),
    "integer beyond double": (
        b'{"signature_name": "embed_candidate", "inputs": {"movie_id": ["a"], "year": [1%s]}}'
        % (b"0" * 400),
        ["year", "valid float", "1000"],
    ),
    "list that is too deep": ({"inputs": columns(query(), query([["u1"]]))}, ["user_id", "shape"]),
    "object that is not base64": (similar([{"b65": "YQ=="}]), ["movie_id", "b65"]),
    "invalid base64": (similar([{"b64": "?"}]), ["movie_id", "b64"]),
    "half a surrogate pair": (
        b'{"signature_name": "similar_candidates", "inputs": ["\\ud800"]}',
        ["movie_id", "ud800"],
    ),
    "lists nested too deeply": (
        similar(json.loads("[" * 40 + "]" * 40)),
        ["at most 32"],
    ),
    "output without a batch in rows": (
        {"signature_name": "scalars", "instances": ["a"]},
        ["same batch size", "first"],
    ),
    "outputs of different batch sizes in rows": (
        {"signature_name": "odd", "instances": ["a"]},
        ["same batch size", "total: 3", "id_bytes: 1"],
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses_with_400_and_a_reason(rest: Rest, case: str) -> None:
    body, words = ERRORS[case]
    status, headers, answer = rest.ask_raw("POST", PREDICT, body)
    assert (status, headers["Content-Type"].split(";")[0]) == (400, "application/json")
    error = json.loads(answer)["error"]
    assert [word for word in words if word not in error] == [], error
