from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.project import PipelineConfig
from pipeline.explore.source import FeatureRows, Histories, Items
from pipeline.source_lookup import describe_candidates, query_features, query_history
from tests.builders import project

_ITEMS = """item,label,price,kind
item é1,"Amélie, the <b>film</b>",2.5,comedy|romance
item é2,Star Wars,,war
item é1,A second row,9,war
item é50,,1,
"""


@pytest.fixture
def described(tmp_path: Path) -> PipelineConfig:
    features = {
        "label": {"kind": "text"},
        "price": {"kind": "numeric"},
        "kind": {"kind": "categorical", "separator": "|"},
    }
    config = project(tmp_path, candidates={"features": features}, index={"filters": ["kind"]})
    (tmp_path / "items.csv").write_text(_ITEMS, encoding="utf-8")
    return config


def test_histories_and_features_are_those_of_a_lookup(described: PipelineConfig) -> None:
    histories, queries = Histories(described), FeatureRows(described, "queries")
    items = Items(described, histories)
    assert len(histories.query_ids) == 240
    for user in ("user 0", "user 37", "nobody"):
        assert histories.of(user) == query_history(described, user)
        assert queries.inputs(user) == query_features(described, user)
    assert sum(histories.counts.values()) == 240 * 14
    known = describe_candidates(described, ["item é1"])["item é1"]
    assert {"label": items.name("item é1"), **items.shown("item é1")[1]} == known


def test_items_are_found_by_words_in_any_case_and_without_accents(
    described: PipelineConfig,
) -> None:
    items = Items(described, Histories(described))
    assert items.search("AMELIE film", 9) == ["item é1"]
    assert items.search("e1", 9) == ["item é1"]
    assert items.search("second", 9) == []  # of two rows, the first counts
    assert items.name("item é50") == "item é50"
    assert items.name("unknown") == "unknown"
    assert len(items) == len(items.search("", 9)) == 3
    events = Histories(described).counts
    assert items.search("", 1) == [max(["item é1", "item é2", "item é50"], key=events.__getitem__)]


def test_filters_have_values_with_counts(described: PipelineConfig) -> None:
    items = Items(described, Histories(described))
    # Of an ID with two rows, both are counted.
    assert items.filters == {"kind": [("comedy", 1), ("romance", 1), ("war", 2)]}
    assert items.passes("item é1", {"kind": ["war", "comedy"]})
    assert not items.passes("item é1", {"kind": ["war"]})
    assert not items.passes("unknown", {"kind": ["war"]})
    assert items.passes("unknown", {})


def test_without_a_catalogue_the_items_are_those_of_the_events(config: PipelineConfig) -> None:
    bare = config.model_copy(
        update={"candidates": config.candidates.model_copy(update={"file": None, "features": {}})}
    )
    items = Items(bare, Histories(bare))
    assert len(items) == 60
    assert items.search("é59", 9) == ["item é59"]
