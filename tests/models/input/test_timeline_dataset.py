from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.features.spec import EventWeights
from models.input import timeline_dataset
from models.input.event_weights import event_weights
from models.input.timeline_dataset import EVENT_WEIGHT_KEY, TimelineDataset
from tests.builders import example, feature_spec

NUM = 25
SPEC = feature_spec(query={"age": {"kind": "numeric"}, "country": {"kind": "categorical"}})


@pytest.fixture(scope="module")
def dataset(
    tmp_path_factory: pytest.TempPathFactory, write_examples: Callable[..., str]
) -> Callable[..., TimelineDataset]:
    folder: Path = tmp_path_factory.mktemp("timelines")
    rows: list[dict[str, list[Any]]] = [
        {
            "user": [number],
            "item": list(range(number % 5)),
            "age": [number / 10] if number % 2 else [],
            "country": [number % 3] if number % 3 else [],
        }
        for number in range(NUM)
    ]
    half = NUM // 2
    files = [
        write_examples(folder / "one", rows[:half]),
        write_examples(folder / "two", rows[half:]),
    ]

    def make(
        batch_size: int = 4, validation_fraction: float | None = 0.0, seed: int = 1, **options: Any
    ) -> TimelineDataset:
        return TimelineDataset(files, SPEC, batch_size, validation_fraction, seed, **options)

    return make


def users(batches: Any) -> list[int]:
    return [int(user) for batch in batches for user in batch["user"][:, 0]]


def epochs(dataset: TimelineDataset, first: int, last: int) -> list[list[int]]:
    batches = list(dataset.epochs(first, last))
    steps = dataset.steps_per_epoch
    assert len(batches) == steps * (last - first)
    return [users(batches[n * steps : (n + 1) * steps]) for n in range(last - first)]


def test_each_epoch_holds_every_timeline_once(dataset: Callable[..., TimelineDataset]):
    made = dataset()
    assert made.num_timelines == NUM
    assert made.steps_per_epoch == 7  # 25 / 4, rounded up
    for epoch in epochs(made, 0, 3):
        assert sorted(epoch) == list(range(NUM))


def test_the_order_depends_on_epoch_and_seed_and_not_on_where_one_begins(
    dataset: Callable[..., TimelineDataset],
):
    made = dataset()
    whole = epochs(made, 0, 5)
    assert epochs(made, 3, 5) == whole[3:]
    assert epochs(made, 0, 5) == whole
    assert whole[0] != whole[1]
    assert epochs(dataset(seed=99), 0, 1)[0] not in whole


def test_rows_are_padded_and_missing_values_marked(dataset: Callable[..., TimelineDataset]):
    for batch in dataset().epochs(0, 1):
        assert batch["user"].shape[1] == 1
        for row, user in enumerate(batch["user"][:, 0].numpy()):
            items = batch["item"][row].numpy().tolist()
            assert items == list(range(user % 5)) + [-1] * (len(items) - user % 5)
            assert (float(batch["age"][row, 0]) == pytest.approx(user / 10)) == bool(user % 2)
            countries = [c for c in batch["country"][row].numpy() if c >= 0]
            assert countries == ([user % 3] if user % 3 else [])


def test_a_split_that_leaves_nothing_on_a_side_is_an_error(dataset: Callable[..., TimelineDataset]):
    with pytest.raises(ValueError, match="validation_fraction"):
        dataset(validation_fraction=0.000001)


def test_held_out_timelines_are_never_fitted(dataset: Callable[..., TimelineDataset]):
    made = dataset(validation_fraction=0.4)
    validation = made.validation()
    assert validation is not None
    held_out = users(validation)
    fitted = epochs(made, 0, 1)[0]
    assert held_out
    assert not set(held_out) & set(fitted)
    assert sorted(held_out + fitted) == list(range(NUM))
    assert made.num_timelines == len(fitted)


def test_training_can_miss_only_the_newest_events_of_held_out_timelines(
    tmp_path: Path, write_examples: Any
):
    rows = [{"user": [n], "item": list(range(1 + n % 24))} for n in range(240)]
    made = TimelineDataset([write_examples(tmp_path, rows)], SPEC, 8, 0.5, 1, holds_out_newest=True)
    held_out = {}
    for batch in made.validation():
        for user, items, weights in zip(
            batch["user"][:, 0].numpy(),
            batch["item"].numpy(),
            batch[EVENT_WEIGHT_KEY].numpy(),
            strict=True,
        ):
            number = 1 + user % 24
            assert (items >= 0).sum() == number > 1
            newest = min(max(number // 4, 1), 5)
            expected = [0] * (number - newest) + [1] * newest
            assert weights[:number].tolist() == expected
            held_out[user] = newest
    assert 80 < len(held_out) < 160
    fitted = {}
    for batch in made.epochs(0, 1):
        assert EVENT_WEIGHT_KEY not in batch
        for user, items in zip(batch["user"][:, 0].numpy(), batch["item"].numpy(), strict=True):
            fitted[user] = items[items >= 0].tolist()
    assert fitted == {n: list(range(1 + n % 24 - held_out.get(n, 0))) for n in range(240)}
    assert made.num_timelines == 240


def test_by_default_a_share_is_held_out_if_it_is_large_enough_to_measure_on(
    dataset: Callable[..., TimelineDataset], monkeypatch: pytest.MonkeyPatch
):
    # 5% of 25 timelines are too few.
    assert dataset(validation_fraction=None).validation() is None
    monkeypatch.setattr(timeline_dataset, "_FEWEST_HELD_OUT", 1)
    monkeypatch.setattr(timeline_dataset, "_USUAL_SHARE", 0.4)
    one, other = dataset(validation_fraction=None), dataset(validation_fraction=0.4)
    assert users(one.validation()) == users(other.validation())
    monkeypatch.setattr(timeline_dataset, "_MOST_HELD_OUT", 2)
    few = dataset(validation_fraction=None)
    assert users(few.validation()) == users(dataset(validation_fraction=2 / NUM).validation())


def test_what_is_held_out_does_not_depend_on_the_order_of_features_in_the_bytes(tmp_path: Path):
    held_out = []
    for order in (1, -1):
        path = str(tmp_path / f"{order}.gz")
        with tf.io.TFRecordWriter(path, "GZIP") as writer:
            for number in range(NUM):
                # The bytes of two messages one after the other are the bytes of both merged.
                parts = [example({"user": [number]}), example({"item": [number, 7]})]
                writer.write(b"".join(parts[::order]))
        dataset = TimelineDataset([path], SPEC, 4, 0.4, 1)
        held_out.append(users(dataset.validation()))
    assert held_out[0] == held_out[1] != []


def test_batches_are_the_same_wherever_the_timelines_are(dataset: Callable[..., TimelineDataset]):
    one, other = (dataset(validation_fraction=0.4, memory_bytes=size) for size in (1 << 20, 100))
    assert (one.is_in_memory, other.is_in_memory) == (True, False)
    for batches, others in ((one.epochs(0, 2), other.epochs(0, 2)),
                            (one.validation(), other.validation())):  # fmt: skip
        for batch, same in zip(batches, others, strict=True):
            assert set(batch) == set(same)
            for name, values in batch.items():
                assert values.dtype == same[name].dtype
                np.testing.assert_array_equal(values, same[name], name)


def test_batches_hold_the_weight_of_each_event(tmp_path: Path, write_examples: Any):
    rows = [
        {
            "user": [user],
            "item": list(range(len(types))),
            "event_type": types,
            "rating": [float(2 + event) for event in range(len(types))],
        }
        for user, types in enumerate([["buy", "look", "view"], ["view"]])
    ]
    weights = EventWeights(types={"look": 0, "view": 0.5}, ratings={"2": 1.0, "6": 3.0})
    spec = feature_spec(event_type="event_type", rating="rating")
    made = TimelineDataset([write_examples(tmp_path, rows)], spec, 2, 0.0, 1, weights=weights)
    (batch,) = made.epochs(0, 1)
    for row, user in enumerate(batch["user"][:, 0].numpy()):
        events = batch["item"][row].numpy() >= 0
        # The product of the weight of the type, by default 1, and of the rating.
        expected = [[1.0, 0.0, 0.5 * 2.0], [0.5]][user]
        np.testing.assert_allclose(batch[EVENT_WEIGHT_KEY][row].numpy()[events], expected)


def test_between_two_ratings_the_weight_is_between_theirs():
    ratings = tf.ragged.constant([[0.0, 1.0, 2.0, 3.0], [4.5, 5.0, 9.0]])
    weights = event_weights(
        {"rating": ratings}, EventWeights(ratings={"5": 1.0, "3": 0.4, "1": 0.0})
    )
    np.testing.assert_allclose(weights, [0.0, 0.0, 0.2, 0.4, 0.85, 1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "warning"),
    [
        ({"types": {"buy": 5, "view": 1}}, None),
        ({"types": {"buy": 5, "View": 2}}, "no effect for View: .* There is buy, view"),
        ({"types": {"buys": 5}}, "every training event has the weight 1"),
        ({"ratings": {"1": 0.5, "5": 1}}, None),
        ({"ratings": {"1": 0.5, "2": 1}}, "every training event has the weight 1"),
    ],
)
def test_weights_that_change_nothing_are_named(
    tmp_path: Path, write_examples: Any, weights: dict[str, Any], warning: str | None
):
    row = {"user": [0], "item": [0, 1], "event_type": ["buy", "view"], "rating": [3.0, 4.0]}
    files, given = [write_examples(tmp_path, [row])], EventWeights(**weights)
    made = TimelineDataset(files, feature_spec(), 2, 0.0, 1, weights=given)
    assert len(made.warnings) == (warning is not None)
    assert all(re.search(str(warning), text) for text in made.warnings)
