"""Ingestion from files to Examples through a real Beam pipeline."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.interactions.buckets import Sizing
from components.interactions.config import SplitConfig
from components.interactions.errors import BadRowsError, EmptySplitError, NoInputError
from models.features.spec import FeatureConfig, FeaturesConfig
from tests.builders import feature_spec
from tests.components.interactions.conftest import EVENTS, FEATURES

TINY = Sizing(block_bytes=64, bucket_bytes=96, batch_events=3, fan_out=2)


def test_leave_last_out_holds_out_the_newest_event(ingestion: Any):
    ingestion.write("events.csv", EVENTS)
    found = ingestion("events.csv")
    assert found.timelines("train") == {"u": "a b c", "v": "b", "w": "a"}
    assert found.timelines("eval") == {"u": "a b c d*", "v": "b c*"}
    assert found.candidates() == ["a", "b", "c"]  # d is after the cut
    report = found.report
    assert (report["events"], report["queries"], report["candidates"]) == (7, 3, 3)
    assert report["one_event_queries"] == 1
    assert report["splits"]["train"]["events"] == 5
    expected = {"timelines": 2, "events": 2, "history_events": 4, "timelines_cut": 0}
    assert report["splits"]["eval"] == expected


def test_temporal_cuts_at_the_quantile_and_ties_go_later(ingestion: Any):
    ingestion.write("events.csv", EVENTS)
    # Times 10 10 20 20 30 40 50: the newest 3 of 7 begin at 30.
    found = ingestion("events.csv", SplitConfig(method="temporal", eval_fraction=0.4))
    assert found.timelines("train") == {"u": "a b", "v": "b c"}
    assert found.timelines("eval") == {"u": "a b c* d*", "w": "a*"}
    assert found.candidates() == ["a", "b", "c"]
    assert found.report["cut"] == {"eval_from": "1970-01-01T00:00:30+00:00"}
    # The newest 4 begin at 20, and both events at 20 are held out.
    found = ingestion("events.csv", SplitConfig(method="temporal", eval_fraction=0.55))
    assert found.timelines("train") == {"u": "a", "v": "b"}
    assert found.report["splits"]["eval"]["events"] == 5


def test_random_split_is_the_same_for_any_files_blocks_and_buckets(ingestion: Any):
    rng = np.random.default_rng(0)
    rows = [f"u{rng.integers(20)},i{rng.integers(30)},{i}\n" for i in range(300)]
    ingestion.write("all.csv", "q,c,t\n" + "".join(rows))
    for part in range(3):
        ingestion.write(f"part-{part}.csv", "q,c,t\n" + "".join(rows[part::3]))
    split = SplitConfig(method="random", eval_fraction=0.3)
    whole = ingestion("all.csv", split)
    assert whole.report["splits"]["eval"]["events"] == pytest.approx(90, abs=5 * math.sqrt(63))
    small = Sizing(block_bytes=500, bucket_bytes=300, batch_events=3)
    in_steps = replace(small, fan_out=3)
    for other in (
        ingestion("part-*.csv", split),
        ingestion("all.csv", split, sizing=small),
        ingestion("all.csv", split, sizing=in_steps),
    ):
        assert other.timelines("train") == whole.timelines("train")
        assert other.timelines("eval") == whole.timelines("eval")
        assert other.candidates() == whole.candidates()
    assert len(other.files("train")) > 9  # three steps


@pytest.mark.parametrize("sizing", [Sizing(), TINY])
def test_files_are_read_in_name_order(ingestion: Any, sizing: Sizing):
    # Without times only the order of files and rows counts.
    ingestion.write("b.csv", "q,c\nu,3\nv,1\nu,4\n")
    ingestion.write("a.csv", "c,q\n1,u\n2,u\n")
    ingestion.write("c.csv", "q,c\nu,5\nv,1\n")
    found = ingestion("?.csv", timestamp=None, sizing=sizing)
    assert found.timelines("eval") == {"u": "1 2 3 4 5*", "v": "1 1*"}
    assert found.report["duplicate_events_dropped"] == 0
    assert "timestamp" not in found.examples("train")[0]


@settings(max_examples=8)
@given(
    events=st.lists(
        st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdef"), st.integers(0, 9)),
        min_size=8,
        max_size=60,
    ),
    method=st.sampled_from(["random", "temporal", "leave_last_out"]),
    block_bytes=st.integers(30, 300),
    bucket_bytes=st.integers(60, 1000),
    fan_out=st.integers(2, 20),
    max_events=st.integers(2, 6),
)
def test_each_event_is_once_in_train_or_once_a_target(
    new_ingestion: Callable[[], Any],
    events: list[tuple[str, str, int]],
    method: Any,
    block_bytes: int,
    bucket_bytes: int,
    fan_out: int,
    max_events: int,
):
    ingestion = new_ingestion()
    rows = [f"{query},{candidate},{time}\n" for query, candidate, time in events]
    ingestion.write("events.csv", "q,c,t\n" + "".join(rows))
    split = SplitConfig(method=method, eval_fraction=0.3)
    sizing = Sizing(block_bytes, bucket_bytes, batch_events=4, fan_out=fan_out)
    try:
        found = ingestion(
            "events.csv", split, sizing=sizing, duplicate_events="keep", max_events=max_events
        )
    except EmptySplitError:
        return
    seen: Counter[tuple[str, str, int]] = Counter()
    for name in ("train", "eval"):
        for example in found.examples(name):
            assert example["timestamp"] == sorted(example["timestamp"])
            seen.update(
                (example["q"][0], candidate, time)
                for candidate, time, target in zip(
                    example["c"], example["timestamp"], example["is_target"], strict=True
                )
                if target == (name == "eval")
            )
    assert seen == Counter(events)
    train_candidates = {c for example in found.examples("train") for c in example["c"]}
    assert found.candidates() == sorted(train_candidates)


def test_long_timelines_are_windows_in_train_and_keep_the_newest_history_in_eval(ingestion: Any):
    ingestion.write("events.csv", "q,c,t\n" + "".join(f"u,{i},{i}\n" for i in range(9)))
    found = ingestion("events.csv", max_events=3)
    assert sorted(found.timelines("train")["u"]) == ["0 1", "2 3 4", "5 6 7"]
    assert found.timelines("eval") == {"u": "5 6 7 8*"}
    assert found.report["splits"]["train"]["timelines_cut"] == 1
    assert found.report["splits"]["eval"]["timelines_cut"] == 1
    assert found.report["splits"]["train"]["events"] == 8


def test_features_catalogue_and_ids_come_out_as_they_are(ingestion: Any):
    ingestion.write("events.csv", "q,c,t,stars\n007,a,1,5\n007,ü→漢,2,3.5\n7,a,3,1\n7,a,4,1\n")
    ingestion.write("users.csv", "q,age,country,zip\n007,44,UK,1\n8,1,X,2\n")
    ingestion.write("films.csv", 'c,kinds,title\na,"x| y|",A\nb,,"B, ""b"""\n')
    files = {"queries": "users.csv", "candidates": "films.csv"}
    found = ingestion("events.csv", rating="stars", features=FEATURES, **files)
    train = {example["q"][0]: example for example in found.examples("train")}
    assert train["007"] == {
        "q": ["007"],
        "age": [44.0],
        "country": ["UK"],
        "c": ["a"],
        "title": [],
        "genres": [],
        "timestamp": [1],
        "rating": [5.0],
        "is_target": [0],
    }
    assert train["7"]["age"] == []
    assert found.timelines("eval")["007"] == "a ü→漢*"
    assert [e["rating"] for e in found.examples("eval") if e["q"] == ["007"]] == [[5.0, 3.5]]
    catalogue = {example["c"][0]: example for example in found.examples("candidates")}
    assert set(catalogue) == {"a", "b"}
    assert catalogue["a"]["genres"] == ["x", "y"]
    assert catalogue["b"]["title"] == ['B, "b"']
    # All splits have the same features.
    assert set(catalogue["a"]) == set(train["7"])
    assert catalogue["a"]["q"] == catalogue["a"]["age"] == catalogue["a"]["is_target"] == []
    report = found.report
    assert report["queries_without_features"] == 1
    assert report["candidates_without_train_events"] == 1
    assert report["ignored_columns"] == {"queries": ["zip"]}


def test_candidates_of_train_events_without_a_row_are_recommended_only_on_request(ingestion: Any):
    ingestion.write("events.csv", EVENTS)
    ingestion.write("films.csv", "c,kinds,title\nz,x,Z\nb,y,B\n")
    features = FeaturesConfig(candidate=FEATURES.candidate)
    options = {"features": features, "candidates": "films.csv"}
    for only_listed, added in ((False, {"a": [], "c": []}), (True, {})):
        found = ingestion("events.csv", **options, only_listed=only_listed)
        catalogue = {example["c"][0]: example["title"] for example in found.examples("candidates")}
        assert catalogue == {"z": ["Z"], "b": ["B"], **added}
        assert found.timelines("train")["u"] == "a b c"
        assert found.report["candidates_not_listed"] == 2
        assert found.report["candidates_added_from_train_events"] == len(added)
        assert found.report["candidates_without_train_events"] == 1
        assert any("2 candidates" in text for text in found.report["warnings"]) is only_listed


def test_parquet_gives_what_csv_gives(ingestion: Any):
    ingestion.write(
        "events.csv",
        "q,c,t,stars\n" + "".join(f"{i % 5},{i % 7},{i * 1000},{i % 3}\n" for i in range(60)),
    )
    table = pa.table(
        {
            "t": pa.array([i * 1000 for i in range(60)], pa.int32()),
            "q": [i % 5 for i in range(60)],
            "c": pa.array([str(i % 7) for i in range(60)]).dictionary_encode(),
            "stars": pa.array([i % 3 for i in range(60)], pa.float64()),
            "unused": [[1]] * 60,
        }
    )
    pq.write_table(table, ingestion.folder / "events.parquet", row_group_size=9)
    csv, parquet = (ingestion(name, rating="stars") for name in ("events.csv", "events.parquet"))
    for split in ("train", "eval", "candidates"):
        assert parquet.examples(split) == csv.examples(split)
    assert parquet.report["ignored_columns"] == {"interactions": ["unused"]}


def test_times_finer_than_seconds_order_events(ingestion: Any):
    ingestion.write("events.csv", "q,c,t\nu,b,1700\nu,a,1200\nu,c,2500\n")
    found = ingestion("events.csv", timestamp_unit="ms")
    assert found.timelines("eval") == {"u": "a b c*"}
    assert found.examples("eval")[0]["timestamp"] == [1, 1, 2]
    assert found.report["events_by_day"] == {"1970-01-01": 3}


@pytest.mark.parametrize(
    ("times", "warning"),
    [
        ("3/4/2024 3/13/2024 3/5/2024", None),
        ("3/4/2024 3/4/2024 3/4/2024", "all are at one instant"),
        ("3/4/1989 3/4/2024 3/5/2024", "from 1989-03-04T.* before 1990"),
        ("3/4/2024 3/4/2924 3/5/2024", "in the future"),
    ],
)
def test_implausible_times_are_warned_about(ingestion: Any, times: str, warning: str | None):
    rows = (f"u,{name},{time}\n" for name, time in zip("abc", times.split(), strict=True))
    ingestion.write("events.csv", "q,c,t\n" + "".join(rows))
    found = ingestion("events.csv", timestamp_unit="%m/%d/%Y").report["warnings"]
    assert [re.search(warning or "", text) is not None for text in found] == [True] * bool(warning)


@pytest.mark.parametrize("unit", ["", "days", "%d.%m.%y", "%H:%M", "%d.%m.%Y %I:%M", "%Y%Y%m%d"])
def test_a_unit_must_determine_a_time(ingestion: Any, unit: str):
    with pytest.raises(ValidationError, match="timestamp_unit"):
        ingestion.config("events.csv", timestamp_unit=unit)


def test_duplicates_are_dropped_and_counted_or_kept(ingestion: Any):
    ingestion.write("events.csv", "q,c,t\nu,a,1\nu,b,1\nu,a,1\nu,a,2\nu,c,3\n")
    dropped = ingestion("events.csv")
    assert dropped.timelines("eval") == {"u": "a b a c*"}
    assert dropped.report["duplicate_events_dropped"] == 1
    kept = ingestion("events.csv", duplicate_events="keep")
    assert kept.timelines("eval") == {"u": "a b a a c*"}


@pytest.mark.parametrize(
    ("content", "split", "message"),
    [
        (
            "u,a,1\nu,b,1\n",
            {"method": "temporal"},
            "`train` has no events: .*eval from 1970-01-01T",
        ),
        (
            "u,a,1\nu,b,2\n",
            {"method": "temporal", "eval_from": datetime(2000, 1, 1)},
            "`eval` has no events: .*eval from 2000-01-01T",
        ),
        ("u,a,1\nv,b,1\n", {"method": "leave_last_out"}, "`eval` .*at least 2 events"),
        ("u,a,1\n", {"method": "random", "eval_fraction": 0.001}, "`eval` .*too few events"),
    ],
)
def test_a_split_without_events_is_an_error_with_its_cause(
    ingestion: Any, content: str, split: dict[str, Any], message: str
):
    ingestion.write("events.csv", "q,c,t\n" + content)
    with pytest.raises(EmptySplitError, match=message):
        ingestion("events.csv", SplitConfig.model_validate(split))


def test_only_final_files_remain(ingestion: Any):
    ingestion.write("events.csv", EVENTS)
    found = ingestion("events.csv")
    names = sorted(
        str(path.relative_to(found.folder)) for path in found.folder.rglob("*") if path.is_file()
    )
    assert names == [
        "examples/Split-candidates/data_tfrecord-00000-of-00001.gz",
        "examples/Split-eval/data_tfrecord-00000-of-00001.gz",
        "examples/Split-train/data_tfrecord-00000-of-00001.gz",
        "rejected/rejected.parquet",
        "report/added_candidates.parquet",
        "report/ingest_report.json",
    ]
    assert found.rejected() == []
    written = (found.folder / "report" / "ingest_report.json").read_text(encoding="utf-8")
    assert json.loads(written) == found.report


def test_works_in_several_processes(ingestion: Any):
    ingestion.write("1.csv", EVENTS)
    ingestion.write("2.csv", "q,c,t\nw,b,60\nx,a,1\n")
    config = ingestion.config("*.csv")
    one = ingestion.run(config)
    arguments = (
        "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2"
    )
    two = ingestion.run(config, TINY, tuple(arguments.split()))
    again = ingestion.run(config, TINY)
    for split in ("train", "eval", "candidates"):
        assert again.examples(split) == two.examples(split)
    assert two.timelines("train") == one.timelines("train")
    assert two.timelines("eval") == one.timelines("eval")
    assert two.candidates() == one.candidates()


RATED = "q,c,t,r\nu,a,1,4.1\nu,b,2,4.0\nu,c,3,5\nu,d,4,1\nv,a,1,4.1\nv,e,2,4.2\nw,a,1,2\n"


def test_events_below_the_minimum_rating_are_ignored(ingestion: Any):
    ingestion.write("events.csv", RATED)
    found = ingestion("events.csv", rating="r", min_rating=4.1)
    # 4.1 itself is enough. Neither d nor w is history, target, candidate or query.
    assert found.timelines("train") == {"u": "a", "v": "a"}
    assert found.timelines("eval") == {"u": "a c*", "v": "a e*"}
    assert found.candidates() == ["a"]
    assert found.report["events_below_min_rating"] == 3
    assert (found.report["events"], found.report["queries"]) == (4, 2)


def test_a_low_rating_does_not_displace_its_duplicate(ingestion: Any):
    ingestion.write("events.csv", "q,c,t,r\nu,a,1,1\nu,a,1,5\nu,b,2,5\n")
    found = ingestion("events.csv", rating="r", min_rating=3)
    assert found.timelines("eval") == {"u": "a b*"}
    assert found.report["duplicate_events_dropped"] == 0


def test_a_minimum_rating_above_all_ratings_is_an_error(ingestion: Any):
    ingestion.write("events.csv", RATED)
    with pytest.raises(NoInputError, match=r"min_rating: 6`; all 7 have lower"):
        ingestion("events.csv", rating="r", min_rating=6)


def typed(ingestion: Any) -> Any:
    config = ingestion.config("events.csv")
    spec = feature_spec(query_id="q", candidate_id="c", timestamp="t", event_type="did")
    return config.model_copy(update={"spec": spec})


def test_event_types_are_aligned_with_their_events(ingestion: Any):
    ingestion.write("events.csv", "q,c,t,did\nu,b,2,buy\nu,a,1,view\nu,c,3,küssen\n")
    found = ingestion.run(typed(ingestion))
    (example,) = found.examples("eval")
    assert (example["c"], example["event_type"]) == (["a", "b", "c"], ["view", "buy", "küssen"])
    assert all(candidate["event_type"] == [] for candidate in found.examples("candidates"))


def test_the_context_is_aligned_with_its_events_and_may_be_missing(ingestion: Any):
    ingestion.write("events.csv", "q,c,t,place\nu,b,2,\nu,a,1,home\nu,c,3,work\n")
    context = {"at": FeatureConfig(kind="categorical", column="place")}
    found = ingestion("events.csv", features=FeaturesConfig(context=context))
    (example,) = found.examples("eval")
    assert (example["c"], example["at"]) == (["a", "b", "c"], ["home", "", "work"])


def test_an_event_without_its_type_is_a_bad_row(ingestion: Any):
    ingestion.write("events.csv", "q,c,t,did\nu,a,1,view\nu,b,2,\n")
    with pytest.raises(BadRowsError, match="did"):
        ingestion.run(typed(ingestion))


def test_a_sentinel_in_any_file_is_a_warning_of_the_report(ingestion: Any):
    ingestion.write("events.csv", EVENTS)
    for part in range(2):
        ages = [(f"u{part}-{n}", n) for n in range(20, 60)] + [(f"none-{part}", -999)]
        rows = "".join(f"{name},{age},x\n" for name, age in ages)
        ingestion.write(f"users-{part}.csv", "q,age,country\n" + rows)
    features = FeaturesConfig(query=FEATURES.query)
    found = ingestion("events.csv", queries="users-*.csv", features=features, sizing=TINY)
    [warning] = [text for text in found.report["warnings"] if "-999" in text]
    assert "`queries.features.age`: 2 of 82 values are -999" in warning
