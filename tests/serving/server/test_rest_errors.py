"""What the REST API refuses, case by case, with the codes and texts of TensorFlow Serving r2.16."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serving.server.rest_calls import PREDICT, Rest, columns, query


@pytest.fixture(scope="module")
def rest(server: Any) -> Rest:
    return Rest(server.rest_url)


QUOTED_BOTH = (
    "JSON Value: {\n"
    '    "inputs": [],\n'
    '    "instances": []\n'
    "} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
)

PREDICT_ERRORS: dict[str, tuple[Any, str]] = {
    "no body": (b"", "JSON Parse error: The document is empty"),
    "blank body": (b" \n", "JSON Parse error: The document is empty. at offset: 2"),
    "no value": (b'{"instances": }', "JSON Parse error: Invalid value. at offset: 14"),
    "no name": (b"{1: 2}", "JSON Parse error: Missing a name for object member. at offset: 1"),
    "no colon": (
        b'{"a" 1}',
        "JSON Parse error: Missing a colon after a name of object member. at offset: 5",
    ),
    "no comma in an object": (
        '{"ü": 1 "b": 2}'.encode(),
        "JSON Parse error: Missing a comma or } after an object member. at offset: 9",
    ),
    "no comma in a list": (
        b'{"a}": [1 2]}',
        "JSON Parse error: Missing a comma or ] after an array element. at offset: 10",
    ),
    "two documents": (
        b"{}{}",
        "JSON Parse error: The document root must not be followed by other values. at offset: 2",
    ),
    "no object": (b"[1]", "JSON Value: [\n    1\n] Is not object"),
    "neither key": ({}, "Missing 'inputs' or 'instances' key"),
    "both keys": ({"inputs": [], "instances": []}, QUOTED_BOTH),
    "signature name is no string": (
        {"signature_name": 1},
        'JSON Value: {\n    "signature_name": 1\n} not formatted correctly. '
        "'signature_name' key must be a string value.",
    ),
    "unknown signature": (
        {"signature_name": "x", "instances": ["a"]},
        'Serving signature name: "x" not found in signature def',
    ),
    "signature without inputs": (
        {"signature_name": "__saved_model_init_op", "instances": ["a"]},
        "Failed to get input map for signature: __saved_model_init_op",
    ),
    "instances is no list": (
        {"instances": 1},
        "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array",
    ),
    "no instances": (
        {"instances": []},
        "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
    ),
    "plain instances for several inputs": (
        {"instances": ["u1"]},
        "instances is a plain list, but expecting list of objects as multiple input tensors "
        "required as per tensorinfo_map",
    ),
    "plain inputs for several inputs": (
        {"inputs": ["u1"]},
        "inputs is a plain value/list, but expecting an object as multiple input tensors "
        "required as per tensorinfo_map",
    ),
    "row without an input, though it has a default": (
        {"instances": [{"user_id": "u1"}]},
        "Failed to process element: 0 of 'instances' list. JSON object: {\n"
        '    "user_id": "u1"\n'
        "} keys must be equal to: age,country,history,title,user_id",
    ),
    "row with an unknown input": (
        {"instances": [query(x=1)]},
        "Failed to process element: 0 key: x of 'instances' list. Error: INVALID_ARGUMENT: "
        "JSON object: does not have named input: x",
    ),
    "rows of different sizes": (
        {"instances": [query(history=["a"]), query(history=["a", "b"])]},
        "Failed to process element: 1 key: history of 'instances' list. Error: "
        "INVALID_ARGUMENT: Expecting tensor size: 1 but got: 2",
    ),
    "rows of different shapes": (
        {"instances": [query(history=["a"]), query(history="a")]},
        "Failed to process element: 1 key: history of 'instances' list. Error: "
        "INVALID_ARGUMENT: Expecting shape [1] but got: []",
    ),
    "row that is no object": (
        {"instances": [query(), "u1"]},
        "Expecting object but got list at item 1 of input list",
    ),
    "columns without an input, though it has a default": (
        {"inputs": {"user_id": ["u1"]}},
        "Missing named input: age in 'inputs' object.",
    ),
    "wrong type in a row": (
        {"signature_name": "similar_candidates", "instances": [1]},
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
        "JSON Value: 1 Type: Number is not of expected type: string",
    ),
    "object among plain rows": (
        {"signature_name": "similar_candidates", "instances": ["a", {"movie_id": "b"}]},
        "Expecting value/list but got object at item 1 of input list",
    ),
    "wrong type in a column": (
        {"inputs": columns(query(age=True))},
        "JSON Value: true Type: True is not of expected type: float",
    ),
    "null": (
        {"inputs": columns(query(None))},
        "JSON Value: null Type: Null is not of expected type: string",
    ),
    "fraction for an integer": (
        {"signature_name": "repeat", "inputs": {"text": ["a"], "count": [1.5]}},
        "JSON Value: 1.5 Type: Number is not of expected type: int64",
    ),
    "ragged list": (
        {"inputs": columns(query(history=["a"]), query(history=[]))},
        "Encountered list at unexpected size: 0 at level: 1 expected size: 1",
    ),
    "list that is too deep": (
        {"inputs": columns(query(), query([["u1"]]))},
        "Encountered list at unexpected level: 1 expected < 1",
    ),
    "value that is too high": (
        {"inputs": columns(query(history=["a"]), query(history="a"))},
        'JSON Value: "a" found at incorrect level: 2 in the JSON DOM. Expected at level: 2',
    ),
    "object that is no base64": (
        {"signature_name": "similar_candidates", "inputs": [{"b65": "YQ=="}]},
        'JSON Value: {\n    "b65": "YQ=="\n} not formatted correctly for base64 data',
    ),
    "bad base64": (
        {"signature_name": "similar_candidates", "inputs": [{"b64": "?"}]},
        "Unable to base64 decode",
    ),
    "half a surrogate pair": (
        b'{"signature_name": "similar_candidates", "inputs": ["\\ud800"]}',
        "JSON Parse error: The surrogate pair in string is invalid.",
    ),
    "number beyond double": (
        b'{"signature_name": "embed_candidate", "inputs": {"movie_id": ["a"], "year": [1%s]}}'
        % (b"0" * 400),
        "JSON Parse error: Number too big to be stored in double. at offset: 77",
    ),
    "number of more digits than Python reads": (
        b'{"inputs": %s}' % (b"1" * 5000),
        "JSON Parse error: Number too big to be stored in double. at offset: 11",
    ),
    "power beyond double": (
        '{"ü1e999": [1.5e3, -1e999]}'.encode(),
        "JSON Parse error: Number too big to be stored in double. at offset: 20",
    ),
    "fault behind a byte order mark": (
        b"\xef\xbb\xbf{1: 2}",
        "JSON Parse error: Missing a name for object member. at offset: 4",
    ),
    "lists nested too deeply": (
        {"signature_name": "similar_candidates", "inputs": json.loads("[" * 40 + "]" * 40)},
        "Lists are nested deeper than 31 levels",
    ),
    "output without a batch in rows": (
        {"signature_name": "scalars", "instances": ["a"]},
        "Tensor name: first has no shape information ",
    ),
    "outputs of different batch sizes in rows": (
        {"signature_name": "odd", "instances": ["a"]},
        "Tensor name: total has inconsistent batch size: 3 expecting: 1",
    ),
}


@pytest.mark.parametrize("case", PREDICT_ERRORS)
def test_predict_refuses(rest: Rest, case: str) -> None:
    body, text = PREDICT_ERRORS[case]
    status, answer = rest.ask("POST", PREDICT, body)
    assert (json.loads(answer)["error"], status) == (text, 400)


def test_an_error_is_one_pretty_member(rest: Rest) -> None:
    status, headers, content = rest.ask_raw("POST", PREDICT, {})
    assert (status, headers["Content-Type"]) == (400, "application/json")
    assert content == b"{\n    \"error\": \"Missing 'inputs' or 'instances' key\"\n}"


PATHS = {
    ("POST", "/v1/models/foo:predict"): (404, "Servable not found for request: Latest(foo)"),
    ("POST", "/v1/models/retrieval/versions/7:predict"): (
        404,
        "Servable not found for request: Specific(retrieval, 7)",
    ),
    ("POST", "/v1/models/retrieval/labels/x:predict"): (
        400,
        "Unrecognized servable version label: x",
    ),
    ("POST", "/v1/models/retrieval/versions/99999999999999999999:predict"): (
        400,
        "Failed to convert version: 99999999999999999999 to numeric.",
    ),
    ("POST", "/v1/models/foo/labels/x:predict"): (400, "Unrecognized servable version label: x"),
    ("GET", "/v1/models/retrieval/labels/x/metadata"): (
        400,
        "Unrecognized servable version label: x",
    ),
    ("POST", "/v1/models/retrieval:PREDICT"): (
        400,
        "Malformed request: POST /v1/models/retrieval:PREDICT",
    ),
    ("POST", "/v1/models/retrieval"): (400, "Malformed request: POST /v1/models/retrieval"),
    ("GET", "/v1/models/retrieval:predict"): (
        400,
        "Malformed request: GET /v1/models/retrieval:predict",
    ),
    ("GET", "/v1/x"): (400, "Malformed request: GET /v1/x"),
    ("PUT", "/v1/models/retrieval"): (400, "Malformed request: PUT /v1/models/retrieval"),
    ("GET", "/v1/models"): (400, "Missing model name in request."),
    ("GET", "/v1/models/foo"): (404, "Could not find any versions of model foo"),
    ("GET", "/v1/models/retrieval/versions/7"): (
        404,
        "Could not find version 7 of model retrieval",
    ),
    ("GET", "/v1/models/foo/metadata"): (404, "Servable not found for request: Latest(foo)"),
}


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_path_refused(rest: Rest, method: str, path: str) -> None:
    body = {"instances": [query()]} if method == "POST" else None
    status, answer = rest.ask(method, path, body)
    assert (status, json.loads(answer)["error"]) == PATHS[method, path]


def quoted(body: str) -> str:
    return "JSON Value: " + json.dumps(json.loads(body), indent=4)


CLASSIFY_ERRORS: dict[str, tuple[str, str]] = {
    "": ("classify", "JSON Parse error: The document is empty"),
    "{}": (
        "classify",
        "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
    ),
    '{"examples": 1}': (
        "regress",
        quoted('{"examples": 1}') + " Expecting 'examples' value to be an list/array",
    ),
    '{"examples": []}': (
        "classify",
        quoted('{"examples": []}') + " 'examples' value is an empty array",
    ),
    '{"examples": [1]}': ("classify", "Example must be JSON object but got JSON Number"),
    '{"examples": [{"a": null}]}': (
        "classify",
        "Feature: a has element with unexpected JSON type: Null",
    ),
    '{"examples": [{"a": [1, "b"]}]}': (
        "classify",
        "Unexpected element type in feature: a expecting type: int64",
    ),
    '{"examples": [{}], "context": [1]}': (
        "regress",
        "Example must be JSON object but got JSON Array",
    ),
    '{"examples": [{"a": [1.5]}]}': ("classify", "Expected one input Tensor."),
    '{"signature_name": "x", "examples": [{}]}': (
        "regress",
        "No signature was found with the name: x",
    ),
    '{"signature_name": "similar_candidates", "examples": [{"a": {"b64": "YQ=="}}]}': (
        "regress",
        "Expected one output Tensor.",
    ),
}


@pytest.mark.parametrize("body", CLASSIFY_ERRORS)
def test_classify_and_regress_refuse(rest: Rest, body: str) -> None:
    method, text = CLASSIFY_ERRORS[body]
    status, answer = rest.ask("POST", f"/v1/models/retrieval:{method}", body.encode())
    assert (status, json.loads(answer)["error"]) == (400, text)


def test_outside_of_the_api_the_answer_is_libevents_page(rest: Rest) -> None:
    status, headers, content = rest.ask_raw("GET", "/")
    assert (status, headers["Content-Type"]) == (404, "text/html; charset=ISO-8859-1")
    assert b"<TITLE>404 Not Found</TITLE>" in content
