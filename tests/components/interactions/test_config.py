from components.interactions.config import DataConfig, IngestConfig, at_run_time
from tests.builders import feature_spec


def config(**data: str) -> IngestConfig:
    return IngestConfig(data=DataConfig(**data), spec=feature_spec(timestamp="time"))


def test_relative_patterns_start_from_the_runs_directory() -> None:
    given = config(interactions="logs/*.csv", candidates="/fixed/items.csv", queries="gs://b/u.csv")
    data = at_run_time(given, "gs://bucket/today/").data
    assert data.interactions == "gs://bucket/today/logs/*.csv"
    assert data.candidates == "/fixed/items.csv"
    assert data.queries == "gs://b/u.csv"
    assert at_run_time(given) == given


def test_a_run_names_its_newest_span() -> None:
    assert at_run_time(config(interactions="logs/{SPAN}.csv"), span="3").data.spans.last == 3
    assert at_run_time(config(interactions="{SPAN:4}.csv"), span="0010").data.spans.last == 10
    days = config(interactions="logs/{YYYY}-{MM}-{DD}.csv")
    assert at_run_time(days, span="2026-11-20").data.spans.last == "2026-11-20"
    assert at_run_time(days, span="newest").data.spans.last == "newest"
