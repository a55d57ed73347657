from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.interactions.config import SplitConfig
from components.interactions.sources.columns import TIME_US
from components.interactions.splits.assignment import Cut, assign_splits

RANDOM_PINNED = [0, 2, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1]


def events(queries: list[str], candidates: list[str], times: list[int] | None = None) -> pa.Table:
    columns = {
        "q": pa.array(queries).dictionary_encode(),
        "c": pa.array(candidates).dictionary_encode(),
    }
    if times is not None:
        columns[TIME_US] = pa.array(times, pa.int64())
    return pa.table(columns)


def assign(table: pa.Table, cut: Cut | None = None, **settings: object) -> list[int]:
    return assign_splits(table, "q", "c", SplitConfig.model_validate(settings), cut).tolist()


def many(count: int = 20_000) -> pa.Table:
    rng = np.random.default_rng(0)
    return events(
        [str(i) for i in rng.integers(0, 100, count)],
        [str(i) for i in rng.integers(0, 100, count)],
        list(range(count)),
    )


def test_random_shares_are_those_of_the_config():
    codes = assign(many(), method="random", eval_fraction=0.2, test_fraction=0.1)
    counts = np.bincount(codes)
    # Standard deviations: sqrt(20,000 * .2 * .8) = 57 and sqrt(20,000 * .1 * .9) = 42.
    assert abs(counts[1] - 4000) < 4 * 57
    assert abs(counts[2] - 2000) < 4 * 42


def test_random_split_of_an_event_does_not_depend_on_its_position():
    table = many(1000)
    order = np.random.default_rng(1).permutation(1000)
    codes = np.array(assign(table, method="random", eval_fraction=0.3))
    assert assign(table.take(order), method="random", eval_fraction=0.3) == codes[order].tolist()
    # Other dictionaries, same events.
    rebuilt = events(
        table["q"].to_pylist()[500:], table["c"].to_pylist()[500:], list(range(500, 1000))
    )
    assert assign(rebuilt, method="random", eval_fraction=0.3) == codes[500:].tolist()


def test_random_splits_of_two_seeds_are_independent():
    one, two = (
        np.array(assign(many(), method="random", eval_fraction=0.5, seed=seed)) for seed in (1, 2)
    )
    # Standard deviation: sqrt(20,000 / 4) = 71.
    assert abs((one == two).sum() - 10_000) < 4 * 71


def test_random_split_distinguishes_occurrences_without_times():
    codes = assign(events(["u"] * 2000, ["a"] * 2000), method="random", eval_fraction=0.5)
    assert 800 < sum(codes) < 1200


def test_random_split_never_changes():
    table = events(["u", "u", "v", "v"] * 3, ["a", "b", "a", "b"] * 3, list(range(12)))
    codes = assign(table, method="random", eval_fraction=0.4, test_fraction=0.2)
    assert codes == RANDOM_PINNED


def test_temporal_gives_an_event_at_the_cut_to_the_later_split():
    table = events(["u"] * 6, list("abcdef"), [1, 4, 5, 6, 8, 9])
    assert assign(table, Cut(5), method="temporal") == [0, 0, 1, 1, 1, 1]
    assert assign(table, Cut(5, 8), method="temporal", test_fraction=0.1) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "leave_last_out", "test_fraction": 0.1}, "set `with_test` instead"),
        ({"eval_from": "2026-01-01", "test_fraction": 0.1}, "set `test_from`"),
    ],
)
def test_settings_that_hold_nothing_out_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        SplitConfig.model_validate({"method": "temporal", **settings})


@pytest.mark.parametrize(
    ("with_test", "expected"),
    [
        # Timelines of one, two, three and four events.
        (False, [0, 0, 1, 0, 0, 1, 0, 0, 0, 1]),
        (True, [0, 0, 0, 0, 1, 2, 0, 0, 1, 2]),
    ],
)
def test_leave_last_out_keeps_short_timelines_for_training(with_test: bool, expected: list[int]):
    table = events(list("uvvwwwxxxx"), list("abcdefghij"))
    assert assign(table, method="leave_last_out", with_test=with_test) == expected
