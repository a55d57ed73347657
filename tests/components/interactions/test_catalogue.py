"""Ingestion of the catalogue alone, for a model that was trained earlier."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.interactions.buckets import Sizing
from components.interactions.errors import BadRowsError, NoInputError
from components.interactions.sources.block import CONFLICT, NOT_A_VECTOR
from models.features.spec import FeatureConfig, FeaturesConfig
from tests.components.interactions.conftest import Ingested, Ingestion

# With so small buckets the candidates of one file fall into several.
TINY = Sizing(block_bytes=64, bucket_bytes=16, batch_events=3)
FEATURES = FeaturesConfig(candidate={"kind_of": FeatureConfig(kind="categorical")})
Refresh = Callable[..., Ingested]


@pytest.fixture
def fitted(ingestion: Ingestion) -> Ingested:
    """A run with training events of `event-only`, which the catalogue lacks."""
    events = [f"{user},{item}" for user in "uvw" for item in ("a", "b", "event-only", "d")]
    ingestion.write("events.csv", "q,c\n" + "\n".join(events) + "\n")
    ingestion.write("items.csv", "c,kind_of\na,x\nb,y\nd,x\nunseen,y\n")
    config = ingestion.config(
        "events.csv",
        timestamp=None,
        features=FEATURES,
        candidates="items.csv",
        only_listed=False,
    )
    return ingestion.run(config, TINY)


@pytest.fixture
def refresh(ingestion: Ingestion, fitted: Ingested) -> Refresh:
    def run(items: str, content: str = "", **data: Any) -> Ingested:
        if content:
            ingestion.write(items, content)
        data = {"only_listed": False, **data}
        config = ingestion.config(
            "events.csv", timestamp=None, features=FEATURES, candidates=items, **data
        )
        return ingestion.run(config, TINY, fitted=fitted)

    return run


def kinds(found: Ingested) -> dict[str, list[str]]:
    examples = found.examples("candidates")
    by_id = {example["c"][0]: example["kind_of"] for example in examples}
    assert len(by_id) == len(examples)
    return by_id


def test_rows_come_and_go_with_the_file_and_event_candidates_stay(refresh: Refresh) -> None:
    # b and unseen are gone, a has changed, e is new; the file never held event-only.
    found = refresh("now.csv", "c,kind_of\ne,z\na,y\nd,x\n")
    assert kinds(found) == {"a": ["y"], "d": ["x"], "e": ["z"], "event-only": []}
    assert found.report["candidates"] == 4
    assert found.report["candidates_added_from_train_events"] == 1
    assert [path.name for path in (found.folder / "examples").iterdir()] == ["Split-candidates"]
    added = pq.read_table(found.folder / "report" / "added_candidates.parquet")
    assert added.to_pydict() == {"candidate_id": ["event-only"]}


def test_with_only_listed_the_candidates_are_those_of_the_file(refresh: Refresh) -> None:
    found = refresh("now.csv", "c,kind_of\ne,z\na,y\n", only_listed=True)
    assert kinds(found) == {"a": ["y"], "e": ["z"]}
    assert found.report["candidates_not_listed"] == 1


def test_an_unchanged_catalogue_gives_the_candidates_of_the_run(
    refresh: Refresh, fitted: Ingested
) -> None:
    assert kinds(refresh("items.csv")) == kinds(fitted)
    assert set(kinds(fitted)) == {"a", "b", "d", "unseen", "event-only"}


def test_an_event_candidate_that_the_file_has_now_comes_once_with_its_features(
    refresh: Refresh,
) -> None:
    assert kinds(refresh("now.csv", "c,kind_of\nevent-only,x\n")) == {"event-only": ["x"]}


def test_a_refresh_reads_columns_that_only_answers_contain(
    ingestion: Ingestion, fitted: Ingested
) -> None:
    ingestion.write("now.csv", 'c,kind_of,Title,price\na,x,"Café, 2nd",9.5\nb,y,,\n')
    returned = {
        "title": FeatureConfig(kind="text", column="Title", learn=False),
        "price": FeatureConfig(kind="numeric", learn=False),
    }
    features = FeaturesConfig(candidate={**FEATURES.candidate, **returned})
    config = ingestion.config("events.csv", timestamp=None, features=features, candidates="now.csv")
    examples = ingestion.run(config, TINY, fitted=fitted).examples("candidates")
    found = {example["c"][0]: (example["title"], example["price"]) for example in examples}
    assert found == {"a": (["Café, 2nd"], [9.5]), "b": ([], [])}


def test_times_of_the_catalogue_are_read_in_the_format_of_the_events(ingestion: Ingestion) -> None:
    ingestion.write("events.csv", "q,c,t\nu,a,2020-01-05\nu,b,2020-01-06\nv,a,2020-01-07\n")
    ingestion.write("items.csv", "c,from,until\na,1970-01-02,\nb,,1969-12-31T23:59:59.5\n")
    columns = {"available_from": "from", "available_until": "until"}
    day = {"day": FeatureConfig(kind="datetime", column="from")}
    config = ingestion.config(
        "events.csv",
        timestamp_unit="iso8601",
        candidates="items.csv",
        features=FeaturesConfig(candidate=day),
        columns=columns,
    )
    found = {example["c"][0]: example for example in ingestion.run(config).examples("candidates")}
    names = "available_from", "available_until", "day"
    assert [found["a"][name] for name in names] == [[86400], [], [86400]]
    assert [found["b"][name] for name in names] == [[], [-1], []]
    ingestion.write("items.csv", "c,from,until\na,soon,\nb,,\n")
    with pytest.raises(BadRowsError, match="not a time"):
        ingestion.run(config)


def test_bad_rows_and_missing_files_are_errors_that_leave_nothing(
    refresh: Refresh, ingestion: Ingestion, fitted: Ingested
) -> None:
    with pytest.raises(BadRowsError, match=r"now\.csv"):
        refresh("now.csv", "c,kind_of\n,x\n")
    assert not list(ingestion.folder.glob("run-2/examples/*"))
    with pytest.raises(NoInputError, match=r"nothing\.csv"):
        refresh("nothing.csv")
    with pytest.raises(NoInputError, match=r"needs `candidates\.file`"):
        ingestion.run(ingestion.config("events.csv", timestamp=None), fitted=fitted)
    (fitted.folder / "report" / "added_candidates.parquet").unlink()
    with pytest.raises(NoInputError, match=r"added_candidates\.parquet is missing"):
        refresh("items.csv")


def test_vectors_are_read_from_lists_of_numbers(ingestion: Ingestion) -> None:
    ingestion.write("events.csv", "q,c\nu,a\nu,b\nv,a\n")
    rows = {
        "a": [0.5, -1.0],
        "b": None,
        "c": [],
        "d": [2.0, None],
        "e": [1.0],
        "f": [1.0, 2.0, 3.0],
        "g": [float("inf"), 0.0],
    }
    ids, lists = [*rows, "a"], [*rows.values(), [0.5, 1.0]]
    table = pa.table({"c": ids, "cover": pa.array(lists, pa.list_(pa.float64()))})
    pq.write_table(table, ingestion.folder / "items.parquet")
    features = FeaturesConfig(candidate={"cover": FeatureConfig(kind="vector", dimension=2)})
    config = ingestion.config(
        "events.csv",
        timestamp=None,
        features=features,
        candidates="items.parquet",
        bad_rows="reject",
    )
    found = ingestion.run(config)
    examples = {example["c"][0]: example["cover"] for example in found.examples("candidates")}
    assert examples == {"a": [0.5, -1.0], "b": [], "c": []}
    reasons = [(bad["value"], bad["reason"]) for bad in found.rejected()]
    assert len(reasons) == 5
    assert reasons.count(("a", CONFLICT)) == 1
    assert sum(reason == NOT_A_VECTOR for _, reason in reasons) == 4
    text = {"candidates": ingestion.write("items.csv", "c,cover\na,0.5\nb,\n")}
    config = config.model_copy(update={"data": config.data.model_copy(update=text)})
    assert [bad["reason"] for bad in ingestion.run(config).rejected()] == [NOT_A_VECTOR]
