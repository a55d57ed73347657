"""Evaluation queries by protocol, of timelines written as words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.evaluation_queries import (
    read_queries,
    sample_queries,
)
from models.features.spec import EventWeights
from tests.builders import feature_spec, write_examples

SPEC = feature_spec(query={"age": {"kind": "numeric"}})
# A star marks a held-out event; z is not in the catalogue.
TIMELINES = {"u": "a b* c d* e", "v": "z* a*", "w": "a b"}
CATALOGUE = "abcde"


def index_of(ids: tf.Tensor) -> np.ndarray:
    return np.array([CATALOGUE.find(name.decode()) for name in ids.numpy()], np.int64)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Any]:
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

    def read(block_size: int = 100, **settings: Any) -> Any:
        config = EvaluationConfig(**settings)
        blocks = list(read_queries([file], SPEC, config, index_of, len(CATALOGUE), block_size))
        sample = sample_queries([file], SPEC, config)
        assert sample.query_ids == {user for block in blocks for user in block.query_ids}
        assert sample.num_events == sum(len(block.targets) for block in blocks)
        return blocks, sample.num_left_out

    return read


def letters(indices: np.ndarray) -> str:
    return "".join("?" if index < 0 else CATALOGUE[index] for index in indices)


def shown(blocks: list[Any]) -> list[str]:
    """Return each evaluation query as `user: history → targets`."""
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


@pytest.mark.parametrize(
    ("protocol", "min_history", "expected", "expected_left_out"),
    [
        # One per query, with the events that are not held out.
        ("from_cut", 0, ["u: ace → bd", "v:  → ?a"], 0),
        # One per held-out event, with everything before it.
        ("rolling", 0, ["u: a → b", "u: abc → d", "v:  → ?", "v: ? → a"], 0),
        # Candidates outside the catalogue count as history: the client sends them.
        ("from_cut", 1, ["u: ace → bd"], 2),
        ("rolling", 1, ["u: a → b", "u: abc → d", "v: ? → a"], 1),
    ],
)
def test_a_protocol_makes_evaluation_queries_of_timelines(
    read: Callable[..., Any],
    protocol: str,
    min_history: int,
    expected: list[str],
    expected_left_out: int,
) -> None:
    blocks, left_out = read(protocol=protocol, min_history=min_history)
    assert (shown(blocks), left_out) == (expected, expected_left_out)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        # The held-out views are history of later events, but no targets.
        ("rolling", ["u: abc → d:buy×5", "v:  → a:buy×5"]),
        ("from_cut", ["u: ac → d:buy×5", "v:  → a:buy×5"]),
    ],
)
def test_only_targets_are_predicted_and_they_have_weights(
    tmp_path: Path, protocol: str, expected: list[str]
):
    timelines = {"u": "a b* c d* e*", "v": "a*", "w": "a b*"}
    buys = {"u": "d", "v": "a", "w": ""}
    file = write_examples(
        tmp_path,
        [
            {
                "user": [user],
                "age": [],
                "item": events.replace("*", "").split(),
                "event_type": [
                    "buy" if event[0] in buys[user] else "view" for event in events.split()
                ],
                "is_target": [int("*" in event) for event in events.split()],
            }
            for user, events in timelines.items()
        ],
    )
    spec = feature_spec(query={"age": {"kind": "numeric"}}, event_type="did")
    weights = EventWeights(types={"view": 1.0, "buy": 5.0}).of_targets(["buy"])
    config = EvaluationConfig(protocol=protocol)
    (block,) = read_queries([file], spec, config, index_of, len(CATALOGUE), 9, weights=weights)
    found = [
        f"{line}:{kind.decode()}×{weight:g}"
        for line, kind, weight in zip(
            shown([block]), block.target_types, block.target_weights, strict=True
        )
    ]
    assert found == expected
    sample = sample_queries([file], spec, config, weights=weights)
    assert (sample.num_events, sample.num_without_weight) == (2, 3)


@pytest.mark.parametrize(("protocol", "expected"), [("rolling", "web,app"), ("from_cut", "web")])
def test_a_query_has_the_context_of_its_target(tmp_path: Path, protocol: str, expected: str):
    row = {"user": ["u"], "item": ["a", "b", "c", "d"], "is_target": [0, 1, 1, 0]}
    file = write_examples(tmp_path, [{**row, "device": ["tv", "web", "app", "tv"]}])
    spec = feature_spec(context={"device": {"kind": "categorical"}})
    (block,) = read_queries([file], spec, EvaluationConfig(protocol=protocol), index_of, 5, 9)
    assert ",".join(name.decode() for name in block.inputs["device"].numpy()) == expected


def test_each_evaluation_query_has_the_features_of_its_query(read: Callable[..., Any]) -> None:
    ((block,), _) = read(protocol="rolling")
    assert list(block.queries) == [0, 0, 1, 1]
    np.testing.assert_array_equal(block.inputs["age"].numpy(), [1.0, 1.0, np.nan, np.nan])


@pytest.mark.parametrize("protocol", ["from_cut", "rolling"])
@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_the_block_size_does_not_change_the_evaluation_queries(
    read: Callable[..., Any], protocol: str, block_size: int
):
    together, _ = read(protocol=protocol)
    apart, _ = read(protocol=protocol, block_size=block_size)
    assert shown(apart) == shown(together)
    assert all(len(block) <= block_size for block in apart)


@pytest.mark.parametrize("protocol", ["rolling", "from_cut"])
def test_sampling_takes_queries_with_all_their_evaluation_queries(tmp_path: Path, protocol: str):
    users = [f"user {number}" for number in range(400)]
    file = write_examples(
        tmp_path,
        [{"user": [user], "item": ["a", "b", "c"], "is_target": [0, 1, 1]} for user in users],
    )
    per_user = 2 if protocol == "rolling" else 1

    def read(max_queries: int) -> list[bytes]:
        config = EvaluationConfig(protocol=protocol)
        sample = sample_queries([file], SPEC, config, max_queries)
        blocks = read_queries([file], SPEC, config, index_of, len(CATALOGUE), 64, sample.share)
        found = [user for block in blocks for user in block.query_ids]
        assert sample.query_ids == set(found)
        assert (sample.num_events, sample.num_left_out) == (800, 0)
        return found

    found = read(100 * per_user)
    assert 60 <= len(set(found)) <= 140
    assert len(found) == per_user * len(set(found))
    assert read(100 * per_user) == found
    assert set(read(50 * per_user)) < set(found)
    assert len(read(400 * per_user)) == 400 * per_user


def test_a_larger_catalogue_gets_fewer_evaluation_queries():
    config = EvaluationConfig()
    assert config.queries_among(1_682) == 25_000
    assert config.queries_among(500_000) == 10_000
    assert config.queries_among(100_000_000) == 1_000
    assert EvaluationConfig(max_queries=7).queries_among(500_000) == 7


@pytest.mark.parametrize(
    ("method", "protocol"),
    [("random", "from_cut"), ("leave_last_out", "from_cut"), ("temporal", "rolling")],
)
def test_auto_chooses_the_protocol_that_fits_the_split(method: str, protocol: str):
    assert EvaluationConfig().for_split(method, SPEC).protocol == protocol
    given = EvaluationConfig(protocol="rolling")
    assert given.for_split(method, SPEC).protocol == "rolling"
