from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from components.serving_validator.expected_answers import SampleQueries
from models.input.raw_examples import read_timelines
from serving.clients.query import Query
from tests.builders import feature_spec, write_examples

SPEC = feature_spec(
    query={
        "age": {"kind": "numeric"},
        "country": {"kind": "categorical"},
        "tags": {"kind": "categorical", "separator": "|"},
    }
)


def test_timelines_as_queries_of_a_client(tmp_path: Path):
    file = write_examples(
        tmp_path,
        [
            {
                "user": ["ü 1"],
                "item": ["a b", "→漢", "c"],
                "is_target": [0, 0, 1],
                "age": [31.0],
                "country": ["CH"],
                "tags": ["x"],
            },
            {
                "user": ["u2"],
                "item": ["d"],
                "is_target": [1],
                "age": [],
                "country": [],
                "tags": ["x", "y z"],
            },
        ],
    )
    samples = SampleQueries.from_timelines(next(read_timelines([file], SPEC, 10)), SPEC)
    assert samples.queries == [
        Query("ü 1", ["a b", "→漢"], {"age": 31.0, "country": "CH", "tags": ["x"]}),
        # Missing values are not sent.
        Query("u2", [], {"tags": ["x", "y z"]}),
    ]
    assert (samples.query_id_name, samples.candidate_id_name) == ("user", "item")
    assert samples.inputs["history"].numpy().tolist() == [[b"a b", "→漢".encode()], [b"", b""]]
    assert tf.math.is_nan(samples.inputs["age"][1])


def test_an_id_that_is_not_utf8_can_be_sent(tmp_path: Path):
    file = write_examples(
        tmp_path,
        [{"user": [b"\xff\xfe"], "item": ["a"], "is_target": [0], "age": [], "country": []}],
    )
    (query,) = SampleQueries.from_timelines(next(read_timelines([file], SPEC, 1)), SPEC).queries
    # Python's surrogate escapes: the client sends the same bytes.
    assert query.query_id == "\udcff\udcfe"
