"""Baselines fitted to files of Examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.retrieval_evaluator.baselines.fitting import fit_baselines
from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.evaluation_queries import read_queries
from tests.builders import feature_spec, write_examples
from tests.components.retrieval_evaluator.baselines.timelines import (
    histories_of,
    indices,
    ranking,
    trained_on,
)

SPEC = feature_spec(
    candidate={"brand": {"kind": "categorical"}, "tags": {"kind": "categorical", "separator": "|"}},
    timestamp="time",
)
# Training ends at second 4; d is new at second 10.
TRAINING = trained_on(["ab", "ac"], 5)


def index_of(names: Any) -> np.ndarray:
    return np.array([indices(name.decode())[0] for name in np.asarray(names)], np.int64)


@pytest.fixture
def files(tmp_path: Path) -> tuple[list[str], list[str]]:
    candidates = [
        {"item": [name], "brand": [brand], "tags": list(tags)}
        for name, brand, tags in zip("abcde", "xxyyz", ["s", "t", "s", "st", ""], strict=True)
    ]
    timelines = [
        {"user": ["u"], "item": ["a", "d"], "timestamp": [0, 10], "is_target": [0, 1]},
        {"user": ["v"], "item": ["b", "c"], "timestamp": [1, 12], "is_target": [0, 1]},
    ]
    return (
        [write_examples(tmp_path / "candidates", candidates)],
        [write_examples(tmp_path / "eval", timelines)],
    )


def test_held_out_events_count_for_later_queries(files: tuple[list[str], list[str]]):
    catalogue, held_out = files
    config = EvaluationConfig(protocol="rolling")
    (queries,) = read_queries(held_out, SPEC, config, index_of, 5, 10)
    assert queries.times is not None
    assert queries.times.tolist() == [10, 12]
    assert queries.part(1, 2).times.tolist() == [12]
    names = ("newest", "last_days_popularity", "content")
    fitted = fit_baselines(names, TRAINING, SPEC, catalogue, held_out, index_of)
    histories = replace(histories_of(["a", "b"]), times=queries.times)
    scores = {name: ranking(baseline(histories).dense()) for name, baseline in fitted.items()}
    assert scores["newest"] == ["cbade", "dcbae"]
    # a has two events, d is the youngest of the others; nobody knew d at second 10.
    assert [row[:2] for row in scores["last_days_popularity"]] == ["ac", "ad"]
    # b shares the brand of a, and c and d its tag. a shares the brand of b, and d its tag.
    assert set(scores["content"][0][:4]) == set("abcd")
    assert set(scores["content"][1][:3]) == set("abd")


def test_baselines_by_time_and_content_need_their_data(files: tuple[list[str], list[str]]):
    without = replace(TRAINING, times=None)
    with pytest.raises(ValueError, match=r"events\.timestamp"):
        fit_baselines(["newest"], without, SPEC, *files, index_of)
