from pathlib import Path

import pytest

from pipeline.config import ConfigError, PipelineConfig, load
from pipeline.source_lookup import describe_candidates, query_features, query_history
from tests.pipeline.two_clubs import write_two_clubs


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return load(str(write_two_clubs(tmp_path)))


def test_a_history_is_in_the_order_of_time_and_not_of_the_file(config: PipelineConfig) -> None:
    events = config.root / "events.csv"
    events.write_text(
        "user,item,time\nuser 1,late,300\nuser 2,other,5\nuser 1,early,20\n", encoding="utf-8"
    )
    assert query_history(config, "user 1") == ["early", "late"]
    assert query_history(config, "nobody") == []


def test_features_come_as_the_model_takes_them(config: PipelineConfig) -> None:
    assert query_features(config, "user 1") == {"club": "red"}
    assert query_features(config, "nobody") == {}


def test_candidates_are_described_by_their_features(config: PipelineConfig) -> None:
    described = describe_candidates(config, ["item é3", "unknown"])
    assert described == {"item é3": {"label": "Thing number 3", "price": "3.5"}}


def test_a_file_that_went_away_is_named(config: PipelineConfig) -> None:
    (config.root / "events.csv").unlink()
    with pytest.raises(ConfigError, match=r"events\.csv"):
        query_history(config, "user 1")
