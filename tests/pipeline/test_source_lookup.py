from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.interactions.errors import IngestError
from pipeline.config.file import load
from pipeline.config.project import PipelineConfig
from pipeline.source_lookup import (
    describe_candidates,
    known_query,
    query_events,
    query_features,
    query_history,
    served_ids,
)
from tests.pipeline.two_clubs import write_two_clubs


def test_a_history_is_in_the_order_of_time_and_not_of_the_file(config: PipelineConfig) -> None:
    events = config.root / "events.csv"
    events.write_text(
        "user,item,time\nuser 1,late,300\nuser 2,other,5\nuser 1,early,20\n", encoding="utf-8"
    )
    assert query_history(config, "user 1") == ["early", "late"]
    assert query_history(config, "nobody") == []


def test_a_file_that_went_away_is_named(config: PipelineConfig) -> None:
    (config.root / "events.csv").unlink()
    with pytest.raises(IngestError, match=r"events\.csv"):
        query_history(config, "user 1")


def test_rows_that_ingestion_rejects_and_duplicates_are_no_history(config: PipelineConfig) -> None:
    (config.root / "events.csv").write_text(
        "user,item,time\nuser 1,a,10\nuser 1,b,yesterday\nuser 1,a,10\nuser 1,c,20,surplus\n"
        "user 1,d,5\n"
    )
    assert query_history(config, "user 1") == ["d", "a"]


def test_a_history_has_event_types_and_no_collapsed_events(tmp_path: Path) -> None:
    types = {"event_type": "kind", "types": {"view": 1, "buy": 3}}
    path = write_two_clubs(tmp_path, events={**types, "collapse_within_s": 60})
    (tmp_path / "events.csv").write_text(
        "user,item,time,kind\nuser 1,a,500,view\nuser 1,b,20,view\nuser 1,b,50,buy\n"
        "user 1,b,400,view\nuser 2,c,10,buy\n"
    )
    config = load(str(path))
    asked = known_query(config, "user 1")
    assert asked.history == ("b", "b", "a")
    assert asked.features == {"club": "red", "history_types": ("buy", "view", "view")}
    # The types of given events are unknown.
    assert known_query(config, "user 1", ["c"]).features == {"club": "red"}
    assert query_events(config, "nobody") == {"history": [], "history_types": []}


def test_events_rated_too_low_are_no_history(tmp_path: Path) -> None:
    path = write_two_clubs(tmp_path, events={"rating": "stars", "min_rating": 4})
    (tmp_path / "events.csv").write_text(
        "user,item,time,stars\nuser 1,bad,10,1\nuser 1,good,20,4\nuser 1,best,30,5\n"
    )
    assert query_history(load(str(path)), "user 1") == ["good", "best"]


def test_times_of_different_zones_are_ordered_as_moments(tmp_path: Path) -> None:
    path = write_two_clubs(tmp_path, events={"timestamp_unit": "iso8601"})
    (tmp_path / "events.csv").write_text(
        "user,item,time\nuser 1,later,2020-01-01T07:00:00Z\n"
        "user 1,earlier,2020-01-01T08:00:00+02:00\n"  # 06:00Z
    )
    assert query_history(load(str(path)), "user 1") == ["earlier", "later"]


def test_lists_in_parquet_are_described_and_sent_as_many_values(tmp_path: Path) -> None:
    separated = {"kind": "categorical", "separator": "|"}
    path = write_two_clubs(
        tmp_path,
        candidates={"file": "items.parquet", "features": {"label": separated}},
        queries={"file": "users.parquet", "features": {"club": separated}},
    )
    pq.write_table(pa.table({"item": ["a"], "label": [["new", "red"]]}), tmp_path / "items.parquet")
    pq.write_table(
        pa.table({"user": ["user 1"], "club": [["blue", "tall"]]}), tmp_path / "users.parquet"
    )
    config = load(str(path))
    assert describe_candidates(config, ["a"]) == {"a": {"label": "new|red"}}
    assert query_features(config, "user 1") == {"club": ["blue", "tall"]}


def test_normalized_ids_are_those_of_the_served_model(tmp_path: Path) -> None:
    path = write_two_clubs(tmp_path, ingest={"normalize_ids": ["strip", "float_suffix"]})
    (tmp_path / "events.csv").write_text("user,item,time\n7.0,a ,10\n 7,b.0,20\n")
    config = load(str(path))
    assert served_ids(config, ["7.0", " x"]) == ["7", "x"]
    assert query_history(config, "7") == ["a", "b.0"]


def test_files_may_call_the_id_otherwise(tmp_path: Path) -> None:
    path = write_two_clubs(
        tmp_path, candidates={"id_column": "sku"}, queries={"id_column": "account"}
    )
    (tmp_path / "items.csv").write_text("sku,label,price\na,Thing,1.5\n")
    (tmp_path / "users.csv").write_text("club,account\nred,user 1\n")
    config = load(str(path))
    described = describe_candidates(config, ["a", "unknown"])
    assert described == {"a": {"label": "Thing", "price": "1.5"}}
    assert query_features(config, "user 1") == {"club": "red"}
    assert query_features(config, "nobody") == {}


def test_a_gap_between_spans_keeps_nobody_from_asking(tmp_path: Path) -> None:
    path = write_two_clubs(tmp_path, events={"files": "day-{SPAN}.csv", "spans": {"window": "all"}})
    for day in (1, 3):
        (tmp_path / f"day-{day}.csv").write_text(f"user,item,time\nuser 1,item é{day},{day}\n")
    config = load(str(path))
    assert config.events.spans.missing == "stop"
    assert query_history(config, "user 1") == ["item é1", "item é3"]
    assert query_features(config, "user 1") == {"club": "red"}
    # The catalogue alone is looked into.
    for file in tmp_path.glob("day-*.csv"):
        file.unlink()
    assert describe_candidates(config, ["item é3"]) != {}


def test_features_in_bigquery_are_left_out(tmp_path: Path) -> None:
    path = write_two_clubs(
        tmp_path,
        queries={"file": "bigquery: SELECT user, club FROM users"},
        candidates={"file": "bigquery: SELECT item, label, price FROM items"},
        ingest={"bigquery": {"project": "shop"}},
    )
    config = load(str(path))
    assert query_features(config, "user 1") == {}
    assert describe_candidates(config, ["a"]) == {}
    assert len(query_history(config, "user 1")) == 14
