"""The synthetic log of the growth benchmark."""

from pathlib import Path

import polars as pl
import pytest

from benchmarks._growth_log import GrowthLog, write_log

NUM_EVENTS = 50_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> GrowthLog:
    return write_log(tmp_path_factory.mktemp("log"), NUM_EVENTS)


def test_every_event_is_of_the_catalogue(log: GrowthLog):
    events, catalogue = pl.read_csv(log.events), pl.read_csv(log.catalogue)
    assert (events.height, catalogue.height) == (NUM_EVENTS, NUM_EVENTS // 20)
    assert events.columns == ["user_id", "item_id", "timestamp"]
    assert catalogue["item_id"].n_unique() == catalogue.height
    assert set(events["item_id"]) <= set(catalogue["item_id"])
    assert events.null_count().sum_horizontal().item() == 0


def test_the_same_seed_writes_the_same_files(log: GrowthLog, tmp_path: Path):
    again = write_log(tmp_path / "again", NUM_EVENTS)
    assert again.events.read_bytes() == log.events.read_bytes()
    assert again.catalogue.read_bytes() == log.catalogue.read_bytes()
    other = write_log(tmp_path / "other", NUM_EVENTS, seed=1)
    assert other.events.read_bytes() != log.events.read_bytes()


def test_few_items_are_popular_and_popularity_drifts(log: GrowthLog):
    events = pl.read_csv(log.events)
    counts = events["item_id"].value_counts(sort=True)["count"]
    assert counts.head(len(counts) // 10).sum() > 0.3 * NUM_EVENTS
    tenths = (events.head(NUM_EVENTS // 10), events.tail(NUM_EVENTS // 10))
    first, last = (set(part["item_id"].value_counts(sort=True)["item_id"][:50]) for part in tenths)
    assert 5 < len(first & last) < 45


def test_a_user_keeps_to_few_categories(log: GrowthLog):
    events = pl.read_csv(log.events).join(pl.read_csv(log.catalogue), on="item_id")
    shares = events.group_by("user_id").agg(
        pl.len(), (pl.col("category").value_counts(sort=True).struct.field("count").head(3).sum())
    )
    busy = shares.filter(pl.col("len") >= 20)
    assert (busy["count"] / busy["len"]).mean() > 0.6
