import json
from pathlib import Path

import pytest

from models.features import ColumnsConfig, FeatureConfig, FeaturesConfig, FeatureSpec
from pipeline.skew.request_log import RequestLog, RequestLogError

SPEC = FeatureSpec(
    columns=ColumnsConfig(query_id="user", candidate_id="item"),
    features=FeaturesConfig(
        query={
            "age": FeatureConfig(kind="numeric"),
            "tags": FeatureConfig(kind="categorical", separator="|"),
        }
    ),
)
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
