from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.index_builder.sample_queries import IndexQuestions, hit_rate, read_questions
from models.input.raw_examples import split_files
from models.towers.saved_towers import SavedTowers


def read(towers: Any, examples: str, ids: list[str], count: int) -> IndexQuestions:
    blocks = [
        pa.array([name.encode() for name in part], pa.binary()) for part in (ids[:100], ids[100:])
    ]
    return read_questions(
        SavedTowers(towers.directory, towers.spec),
        split_files(examples, "eval"),
        towers.spec,
        blocks,
        count,
    )


@pytest.mark.parametrize("count", [3, 10, 1000])
def test_no_query_both_tunes_and_judges(many_towers: Any, many_examples: str, count: int):
    questions = read(many_towers, many_examples, many_towers.ids, count)
    expected = min(count, len(many_towers.queries) // 2)
    assert questions.tuning.shape == questions.judging.shape == (expected, 8)
    together = np.concatenate([questions.tuning, questions.judging])
    assert len(np.unique(together, axis=0)) == 2 * expected


def test_targets_belong_to_their_query(many_towers: Any, many_examples: str):
    questions = read(many_towers, many_examples, many_towers.ids, 1000)
    # Each of the ten that judge holds out two of the 300.
    np.testing.assert_array_equal(questions.target_rows, np.repeat(np.arange(10), 2))
    everything = np.tile(np.arange(300), (10, 1))
    assert hit_rate(questions, everything) == 1.0
    own = questions.targets.reshape(10, 2)
    assert hit_rate(questions, own[:, :1]) == 0.5
    assert hit_rate(questions, np.roll(own, 1, axis=0)) < 0.2


def test_what_the_catalogue_lacks_does_not_count(many_towers: Any, many_examples: str):
    whole = read(many_towers, many_examples, many_towers.ids, 1000)
    half = read(many_towers, many_examples, many_towers.ids[:150], 1000)
    np.testing.assert_array_equal(half.targets, np.where(whole.targets < 150, whole.targets, -1))
    assert 0 < (half.targets >= 0).sum() < len(half.targets)
    assert hit_rate(half, np.tile(np.arange(150), (10, 1))) == 1.0


def test_without_held_out_events_there_is_no_hit_rate(many_towers: Any, many_examples: str):
    nothing = read(many_towers, many_examples, ["another"] * 101, 1000)
    assert math.isnan(hit_rate(nothing, np.zeros((10, 1), np.int32)))
