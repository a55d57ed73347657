from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from components.serving_validator.sample_queries import Questions
from models.features.spec import FeatureSpec
from models.input.raw_examples import read_timelines
from serving.clients.query import Query

SPEC = FeatureSpec.model_validate(
    {
        "columns": {"query_id": "user", "candidate_id": "item"},
        "features": {
            "query": {
                "age": {"kind": "numeric"},
                "country": {"kind": "categorical"},
                "tags": {"kind": "categorical", "separator": "|"},
            }
        },
    }
)


def test_a_timeline_becomes_what_a_client_would_send(
    write_examples: Callable[..., str], tmp_path: Path
):
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
    questions = Questions.from_timelines(next(read_timelines([file], SPEC, 10)), SPEC)
    assert questions.queries == [
        Query("ü 1", ["a b", "→漢"], {"age": 31.0, "country": "CH", "tags": ["x"]}),
        # What is missing is not sent.
        Query("u2", [], {"tags": ["x", "y z"]}),
    ]
    assert (questions.query_id_name, questions.candidate_id_name) == ("user", "item")
    assert questions.inputs["history"].numpy().tolist() == [
        [b"a b", "→漢".encode()],
        [b"", b""],
    ]
    assert tf.math.is_nan(questions.inputs["age"][1])


def test_an_id_that_is_no_text_can_still_be_asked(
    write_examples: Callable[..., str], tmp_path: Path
):
    file = write_examples(
        tmp_path,
        [{"user": [b"\xff\xfe"], "item": ["a"], "is_target": [0], "age": [], "country": []}],
    )
    (query,) = Questions.from_timelines(next(read_timelines([file], SPEC, 1)), SPEC).queries
    # As Python names files that are no text: the client sends the same bytes.
    assert query.query_id == "\udcff\udcfe"
