from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.input.raw_examples import read_candidates, read_timelines, split_files
from tests.builders import feature_spec

SPEC = feature_spec(
    query={"age": {"kind": "numeric"}},
    candidate={"genres": {"kind": "categorical", "separator": "|"}, "title": {"kind": "text"}},
)


@pytest.fixture
def timelines(write_examples: Callable[..., str], tmp_path: Path) -> str:
    def row(user: str, items: list[str], is_target: list[int], age: list[float]) -> Any:
        return {"user": [user], "item": items, "is_target": is_target, "age": age}

    return write_examples(
        tmp_path,
        [
            row("u1", ["a b", "→", "c"], [0, 1, 0], [30.0]),
            row("u2", ["d"], [1], []),
            row("u3", [], [], []),
        ],
    )


def test_held_out_events_are_targets_and_never_history(timelines: str):
    (batch,) = read_timelines([timelines], SPEC, 10)
    assert batch.targets.to_list() == [["→".encode()], [b"d"], []]
    assert batch.inputs["history"].numpy().tolist() == [[b"a b", b"c"], [b"", b""], [b"", b""]]


def test_missing_numbers_are_nan_even_where_a_whole_batch_lacks_them(timelines: str):
    batches = list(read_timelines([timelines], SPEC, 1))
    ages = [float(batch.inputs["age"][0]) for batch in batches]
    assert ages[0] == 30.0
    assert math.isnan(ages[1])
    assert math.isnan(ages[2])


def test_the_catalogue_is_read_as_a_client_would_send_it(
    write_examples: Callable[..., str], tmp_path: Path
):
    file = write_examples(
        tmp_path,
        [
            {"item": ["a b"], "genres": ["x", "y"], "title": ["One"]},
            {"item": ["→"], "genres": [], "title": []},
        ],
    )
    (inputs,) = read_candidates([file], SPEC, 10)
    assert {name: values.numpy().tolist() for name, values in inputs.items()} == {
        "item": [b"a b", "→".encode()],
        "genres": [[b"x", b"y"], [b"", b""]],
        "title": [b"One", b""],
    }


def test_a_split_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="split 'test'"):
        split_files(str(tmp_path), "test")
