from __future__ import annotations

from pathlib import Path

from models.input.raw_examples import read_timelines
from pipeline.runs.evaluation import client_queries
from serving.clients.query import Query
from tests.builders import feature_spec, write_examples

SPEC = feature_spec(
    query={
        "age": {"kind": "numeric"},
        "country": {"kind": "categorical"},
        "tags": {"kind": "categorical", "separator": "|"},
    }
)


def queries_of(file: str) -> list[Query]:
    return client_queries(next(read_timelines([file], SPEC, 10)).inputs, SPEC)


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
    assert queries_of(file) == [
        Query("ü 1", ["a b", "→漢"], {"age": 31.0, "country": "CH", "tags": ["x"]}),
        # Missing values are not sent.
        Query("u2", [], {"tags": ["x", "y z"]}),
    ]


def test_an_id_that_is_not_utf8_can_be_sent(tmp_path: Path):
    file = write_examples(
        tmp_path,
        [{"user": [b"\xff\xfe"], "item": ["a"], "is_target": [0], "age": [], "country": []}],
    )
    (query,) = queries_of(file)
    # Python's surrogate escapes: the client sends the same bytes.
    assert query.query_id == "\udcff\udcfe"
