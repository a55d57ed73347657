"""Which questions a protocol asks of timelines that are written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.evaluation_queries import QuestionReader
from models.features.spec import FeatureSpec

SPEC = FeatureSpec.model_validate(
    {
        "columns": {"query_id": "user", "candidate_id": "item"},
        "features": {"query": {"age": {"kind": "numeric"}}},
    }
)
# A star marks what is held out; z is not in the catalogue.
TIMELINES = {"u": "a b* c d* e", "v": "z* a*", "w": "a b"}
CATALOGUE = "abcde"


@pytest.fixture
def ask(write_examples: Callable[..., str], tmp_path: Path) -> Callable[..., Any]:
    file = write_examples(
        tmp_path,
        [
            {
                "user": [user],
                "age": [float(len(user))] if user != "v" else [],
                "item": events.replace("*", "").split(),
                "is_target": [int("*" in event) for event in events.split()],
            }
            for user, events in TIMELINES.items()
        ],
    )
    index_of = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(list(CATALOGUE)), tf.range(len(CATALOGUE), dtype=tf.int64)
        ),
        -1,
    )

    def ask(block_size: int = 100, **settings: Any) -> Any:
        config = EvaluationConfig(**settings)
        reader = QuestionReader(SPEC, index_of, config, config.max_questions)
        blocks = list(reader.read([file], block_size))
        asked = {user for block in blocks for user in block.query_ids}
        assert reader.draw([file]).query_ids == asked
        return blocks, reader.num_left_out

    return ask


def letters(indices: np.ndarray) -> str:
    return "".join("?" if index < 0 else CATALOGUE[index] for index in indices)


def shown(blocks: list[Any]) -> list[str]:
    """Each question as `user: history → targets`."""
    found = []
    for block in blocks:
        for number in range(len(block)):
            user = block.inputs["user"].numpy()[number].decode()
            sent = b"".join(block.inputs["history"].numpy()[number]).decode()
            history = letters(block.history[block.history_rows == number])
            assert sent.replace("z", "?") == history
            targets = letters(block.targets[block.target_rows == number])
            found.append(f"{user}: {history} → {targets}")
    return found


def test_from_cut_asks_each_query_once_from_all_that_is_not_held_out(ask: Callable[..., Any]):
    blocks, left_out = ask(protocol="from_cut")
    assert shown(blocks) == ["u: ace → bd", "v:  → ?a"]
    assert left_out == 0


def test_rolling_asks_each_held_out_event_from_everything_before_it(ask: Callable[..., Any]):
    blocks, left_out = ask(protocol="rolling")
    assert shown(blocks) == ["u: a → b", "u: abc → d", "v:  → ?", "v: ? → a"]
    assert [query for block in blocks for query in block.queries] == [0, 0, 1, 1]
    assert left_out == 0


def test_a_question_may_need_a_history(ask: Callable[..., Any]):
    # What the catalogue lacks is history all the same: the client sends it.
    blocks, left_out = ask(protocol="rolling", min_history=1)
    assert shown(blocks) == ["u: a → b", "u: abc → d", "v: ? → a"]
    assert left_out == 1
    blocks, left_out = ask(protocol="from_cut", min_history=1)
    assert shown(blocks) == ["u: ace → bd"]
    assert left_out == 2


@pytest.mark.parametrize("protocol", ["from_cut", "rolling"])
@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_blocks_of_any_size_hold_the_same_questions(
    ask: Callable[..., Any], protocol: str, block_size: int
):
    together, _ = ask(protocol=protocol)
    apart, _ = ask(protocol=protocol, block_size=block_size)
    assert shown(apart) == shown(together)
    assert all(len(block) <= block_size for block in apart)


def test_features_of_the_query_stand_beside_each_of_its_questions(ask: Callable[..., Any]):
    ((block,), _) = ask(protocol="rolling")
    np.testing.assert_array_equal(block.inputs["age"].numpy(), [1.0, 1.0, np.nan, np.nan])


@pytest.mark.parametrize("protocol", ["rolling", "from_cut"])
def test_of_too_many_questions_whole_queries_are_drawn(
    write_examples: Callable[..., str], tmp_path: Path, protocol: str
):
    users = [f"user {number}" for number in range(400)]
    file = write_examples(
        tmp_path,
        [{"user": [user], "item": ["a", "b", "c"], "is_target": [0, 1, 1]} for user in users],
    )
    index_of = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(["a", "b", "c"], tf.range(3, dtype=tf.int64)), -1
    )
    a_query = 2 if protocol == "rolling" else 1

    def read(max_questions: int) -> tuple[list[bytes], int, int]:
        settings = EvaluationConfig(protocol=protocol)
        reader = QuestionReader(SPEC, index_of, settings, max_questions)
        draw = reader.draw([file])
        asked = [user for block in reader.read([file], 64, draw) for user in block.query_ids]
        assert draw.query_ids == set(asked)
        return asked, reader.num_not_drawn, reader.num_left_out

    asked, not_drawn, left_out = read(100 * a_query)
    assert 60 <= len(set(asked)) <= 140
    assert len(asked) == a_query * len(set(asked))
    assert (not_drawn, left_out) == (2 * (400 - len(set(asked))), 0)
    assert read(100 * a_query)[0] == asked
    fewer, _, _ = read(50 * a_query)
    assert set(fewer) < set(asked)
    everybody, not_drawn, _ = read(400 * a_query)
    assert len(everybody) == 400 * a_query
    assert not_drawn == 0


def test_a_larger_catalogue_is_asked_fewer_questions():
    config = EvaluationConfig()
    assert config.questions_among(1_682) == 25_000
    assert config.questions_among(500_000) == 10_000
    assert config.questions_among(100_000_000) == 1_000
    assert EvaluationConfig(max_questions=7).questions_among(500_000) == 7


@pytest.mark.parametrize(
    ("method", "protocol"),
    [("random", "from_cut"), ("leave_last_out", "from_cut"), ("temporal", "rolling")],
)
def test_auto_takes_the_protocol_that_fits_the_split(method: str, protocol: str):
    assert EvaluationConfig().for_split(method, has_times=True).protocol == protocol
    told = EvaluationConfig(protocol="rolling")
    assert told.for_split(method, has_times=True).protocol == "rolling"
