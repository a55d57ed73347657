import gzip
import json
from pathlib import Path

import pytest

from pipeline.errors import RequestLogError
from pipeline.skew.request_log import RequestLog
from tests.builders import feature_spec

SPEC = feature_spec({"age": {"kind": "numeric"}, "tags": {"kind": "categorical", "separator": "|"}})
EXPECTED = [
    {"user": ["u1"], "history": ["a", "é"], "age": [30.0], "tags": ["x", "y"]},
    {"user": [], "history": [], "age": [], "tags": []},
]


def log(path: Path) -> RequestLog:
    return RequestLog(path, SPEC)


def test_json_lines_of_both_forms_are_read(tmp_path: Path) -> None:
    columns = {
        "inputs": {
            "user": ["u1", ""],
            "history": [["a", "é"], ["", ""]],
            "age": [30, float("nan")],
            "tags": [["x", "y"], []],
        }
    }
    rows = {
        "signature_name": "recommend_excluding",
        "instances": [
            {"user": "u1", "history": ["a", "é"], "age": 30, "tags": ["x", "y"], "exclude": ["z"]},
            {"user": "", "history": [], "age": float("nan"), "tags": [], "exclude": [""]},
        ],
    }
    similar = {"signature_name": "similar_candidates", "inputs": {"item": ["a"]}}
    file = tmp_path / "log.jsonl"
    file.write_text("\n\n".join(json.dumps(body) for body in (columns, rows, similar)))
    read = log(file)
    assert list(read.rows()) == EXPECTED * 2
    assert (read.num_requests, read.num_others) == (2, 1)


def test_one_row_stands_for_the_batch(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(json.dumps({"inputs": {"user": ["u1", "u2"], "age": [5]}}))
    assert [(row["user"], row["age"]) for row in log(file).rows()] == [
        (["u1"], [5.0]),
        (["u2"], [5.0]),
    ]


def test_what_tensorflow_serving_logs_is_read(tmp_path: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    record = prediction_log_pb2.PredictionLog()
    inputs = record.predict_log.request.inputs
    for name, value in {
        "user": tf.constant(["u1", ""]),
        "history": tf.constant([["a", "é"], ["", ""]]),
        "age": tf.constant([30.0, float("nan")]),
        "tags": tf.constant([["x", "y"], ["", ""]]),
    }.items():
        inputs[name].CopyFrom(tf.make_tensor_proto(value))
    file = tmp_path / "requests"
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(record.SerializeToString())
    assert list(log(file).rows()) == EXPECTED


@pytest.mark.parametrize("content", ['{"x": 1}', '{"inputs": [', "no log", ""])
def test_what_is_no_log_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "log"
    file.write_text(content)
    if not content:
        assert list(log(file).rows()) == []
        return
    with pytest.raises(RequestLogError, match=str(file)):
        list(log(file).rows())


def test_null_and_what_an_instance_leaves_out_are_missing(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    instances = [{"user": "u1", "age": None}, {"age": 5, "history": ["a", None], "tags": None}]
    file.write_text(json.dumps({"instances": instances}))
    assert list(log(file).rows()) == [
        {"user": ["u1"], "history": [], "age": [], "tags": []},
        {"user": [], "history": ["a"], "age": [5.0], "tags": []},
    ]


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"user": ["u1"], "age": ["abc"]}, "input 'age', row 1: could not convert"),
        ({"user": ["u1"], "age": [[[3]]]}, "input 'age', row 1: "),
        ({"user": ["u1"], "age": [10**400]}, "input 'age', row 1: "),
        ({"user": [["u1", ["u2"]]]}, "input 'user', row 1: must be text"),
        ({"user": ["u1", "u2", "u3"], "age": [1, 2]}, "one row .* age 2, user 3"),
    ],
)
def test_a_request_that_no_model_takes_is_named_by_its_line(
    tmp_path: Path, inputs: dict[str, object], problem: str
) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text("\n".join(json.dumps({"inputs": body}) for body in ({"user": ["u1"]}, inputs)))
    with pytest.raises(RequestLogError, match=f"log.jsonl:2: .*{problem}"):
        list(log(file).rows())


def test_a_log_that_ends_in_the_middle_is_named(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl.gz"
    whole = gzip.compress(json.dumps({"inputs": {"user": ["u1"] * 1000}}).encode())
    file.write_bytes(whole[:-8])
    with pytest.raises(RequestLogError, match=f"{file} cannot be read"):
        list(log(file).rows())
