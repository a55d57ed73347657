"""BigQuery queries as sources, up to the boundary of Beam's own reader: rows come from a fake."""

from __future__ import annotations

import importlib.util
import random
import sys
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import apache_beam as beam
import google.auth
import pytest
from google.auth.exceptions import DefaultCredentialsError
from pydantic import ValidationError

from components.interactions.config import (
    DataConfig,
    IngestConfig,
    Source,
    SplitConfig,
    at_run_time,
)
from components.interactions.errors import NoInputError, QueryError
from components.interactions.sources import bigquery
from components.interactions.sources.files import find_files, fingerprint
from models.features.spec import ColumnsConfig, FeatureConfig, FeaturesConfig, FeatureSpec
from pipeline.config.file import load
from pipeline.errors import ConfigError
from pipeline.runs.state import input_state
from pipeline.schema_inference.config_schema import write_inferred_schema
from tests.components.interactions.conftest import IN_MEMORY
from tests.pipeline.two_clubs import write_two_clubs

EVENTS, FILMS, USERS = ("SELECT * FROM `a.b.events`", "SELECT * FROM films", "SELECT * FROM users")
FEATURES = FeaturesConfig(
    query={"age": FeatureConfig(kind="numeric")},
    candidate={"kinds": FeatureConfig(kind="categorical", separator="|")},
)


class FakeReader(beam.PTransform):
    """Takes what Beam's `ReadFromBigQuery` takes."""

    rows: dict[str, list[dict[str, Any]]] = {}
    options: list[dict[str, Any]] = []

    def __init__(self, **options: Any):
        super().__init__()
        self.options.append(options)
        self._query = options["query"]

    def expand(self, pipeline: Any) -> Any:
        project = pipeline.pipeline.options.view_as(
            beam.options.pipeline_options.GoogleCloudOptions
        ).project
        self.options[-1] = {**self.options[-1], "project of the pipeline": project}
        return pipeline | beam.Create(self.rows[self._query])


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> type[FakeReader]:
    """With the rows of 30 events, of which every third shares its moment with another query's."""
    monkeypatch.setattr(FakeReader, "options", [])
    monkeypatch.setattr(bigquery, "load_reader", lambda: (FakeReader, SimpleNamespace))
    events = [
        {"q": i % 4, "c": f"é{i * 5 % 7}", "t": _moment(i // 3), "stars": Decimal(i % 5), "x": None}
        for i in range(30)
    ]
    films = [{"c": f"é{i}", "kinds": ["a", "b"][: i % 3]} for i in range(7)]
    users = [{"q": i, "age": 20.5 + i if i else None} for i in range(4)]
    monkeypatch.setattr(FakeReader, "rows", {EVENTS: events, FILMS: films, USERS: users})
    return FakeReader


def _moment(minute: int) -> datetime:
    return datetime(2026, 11, 20, 12, minute, tzinfo=timezone.utc)


def config(interactions: str = f"bigquery: {EVENTS}", **data: Any) -> IngestConfig:
    data.setdefault("bigquery", {"project": "shop"})
    return IngestConfig(
        data=DataConfig.model_validate({"interactions": interactions, **data}),
        split=SplitConfig(method="leave_last_out"),
        spec=FeatureSpec(
            columns=ColumnsConfig(query_id="q", candidate_id="c", timestamp="t", rating="stars"),
            features=FEATURES if "queries" in data else FeaturesConfig(),
        ),
    )


def examples(found: Any) -> list[Any]:
    return [found.examples(split) for split in ("train", "eval", "candidates")]


def test_rows_become_the_same_examples_as_csv(ingestion: Any, reader: type[FakeReader]) -> None:
    of_query = ingestion.run(
        config(candidates=f"bigquery:{FILMS}", queries=f"BigQuery: {USERS}", timestamp_unit="s")
    )
    # Among events of one moment the candidate decides, in any order of the result.
    events = sorted(reader.rows[EVENTS], key=lambda row: (row["t"], row["c"]))
    files = {
        "interactions": "q,c,t,stars\n"
        + "".join(f"{r['q']},{r['c']},{r['t'].isoformat()},{r['stars']}\n" for r in events),
        "candidates": "c,kinds\n"
        + "".join(f"{r['c']},{'|'.join(r['kinds'])}\n" for r in reader.rows[FILMS]),
        "queries": "q,age\n"
        + "".join(f"{r['q']},{'' if r['age'] is None else r['age']}\n" for r in reader.rows[USERS]),
    }
    paths = {name: ingestion.write(f"{name}.csv", content) for name, content in files.items()}
    of_csv = ingestion.run(config(**paths, bigquery=None, timestamp_unit="iso8601"))
    assert examples(of_query) == examples(of_csv)
    assert of_query.report["ignored_columns"]["interactions"] == ["x"]
    for rows in reader.rows.values():
        random.Random(1).shuffle(rows)
    shuffled = ingestion.run(config(candidates=f"bigquery:{FILMS}", queries=f"bigquery: {USERS}"))
    assert examples(shuffled) == examples(of_query)
    assert not list(shuffled.folder.glob("examples/.spill"))


def test_query_and_options_reach_the_reader(ingestion: Any, reader: type[FakeReader]) -> None:
    ingestion.run(config(bigquery={"project": "shop", "temp_dataset": "scratch"}))
    assert reader.options == [
        {
            "query": EVENTS,
            "project": "shop",
            "project of the pipeline": "shop",
            "use_standard_sql": True,
            "method": "DIRECT_READ",
            "use_native_datetime": True,
            "temp_dataset": SimpleNamespace(projectId="shop", datasetId="scratch"),
        }
    ]
    ingestion.run(config(), options=(*IN_MEMORY, "--project=cluster"))
    assert reader.options[1]["project of the pipeline"] == "cluster"
    assert "temp_dataset" not in reader.options[1]


def test_catalogue_alone_may_be_a_query(ingestion: Any, reader: type[FakeReader]) -> None:
    with_catalogue = config(candidates=f"bigquery: {FILMS}")
    fitted = ingestion.run(with_catalogue)
    reader.rows[FILMS] = [{"c": "new", "kinds": ["a"]}]
    del reader.rows[EVENTS]
    assert ingestion.run(with_catalogue, fitted=fitted).candidates() == ["new"]


def test_bad_rows_are_set_aside_with_their_value(ingestion: Any, reader: type[FakeReader]) -> None:
    reader.rows[EVENTS] += [{"q": None, "c": "é1", "t": _moment(1), "stars": Decimal(1), "x": None}]
    found = ingestion.run(config(bad_rows="reject"))
    (row,) = found.rejected()
    assert (row["column"], row["reason"]) == ("q", "missing")
    assert row["file"].startswith("interactions-0000")


def test_result_without_rows_is_an_error(ingestion: Any, reader: type[FakeReader]) -> None:
    reader.rows[EVENTS] = []
    with pytest.raises(NoInputError, match=r"`events.files`: the query has no rows"):
        ingestion.run(config())
    assert not list(ingestion.folder.glob("run-*/examples/*"))


@pytest.mark.skipif(
    importlib.util.find_spec("apitools") is not None,
    reason="the extra, whose absence is tested, is installed",
)
def test_missing_extra_is_named(ingestion: Any) -> None:
    with pytest.raises(QueryError, match="needs the extra `bigquery`"):
        ingestion.run(config())


def test_missing_credentials_are_an_error(ingestion: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("apitools", "google.cloud.bigquery", "google.cloud.bigquery_storage_v1"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))

    def no_credentials() -> None:
        raise DefaultCredentialsError("none were found")

    monkeypatch.setattr(google.auth, "default", no_credentials)
    with pytest.raises(QueryError, match="needs Google credentials: none were found"):
        ingestion.run(config())


def test_beams_reader_takes_these_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("apitools", reason="needs the extra `bigquery`")
    monkeypatch.setattr(google.auth, "default", lambda: (None, None))
    options = config(bigquery={"project": "shop", "temp_dataset": "scratch"}).data.bigquery
    assert options is not None
    queries: dict[Source, str] = {"interactions": EVENTS}
    pipeline = beam.Pipeline(argv=[])  # built, not run
    bigquery._read(pipeline, bigquery.load_reader(), queries, options, str(tmp_path))


def test_only_a_run_executes(reader: type[FakeReader]) -> None:
    with pytest.raises(QueryError, match=r"`events.files` is a query, which only a run"):
        find_files(config())


def test_each_run_is_new_unless_only_the_text_counts() -> None:
    assert fingerprint(config()) != fingerprint(config())
    by_text = {"project": "shop", "execute": "new_text"}
    same = fingerprint(config(bigquery=by_text))
    assert fingerprint(config(f"bigquery:   {EVENTS} ", bigquery=by_text)) == same
    assert fingerprint(config(f"bigquery: {EVENTS} LIMIT 9", bigquery=by_text)) != same
    assert fingerprint(config(bigquery={**by_text, "project": "other"})) != same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bigquery": None}, "`events.files` is a query: set `ingest.bigquery.project`"),
        ({"interactions": "events.csv"}, "`ingest.bigquery` needs an input"),
        ({"format": "csv"}, "`format: csv` is for files, and would also apply to"),
        ({"interactions": "bigquery: "}, "no query follows"),
        ({"interactions": "bigquery: SELECT * FROM t_{YYYY}{MM}{DD}"}, "a query cannot have spans"),
        ({"bigquery": {"project": ""}}, "at least 1 character"),
    ],
)
def test_settings_that_do_not_fit_are_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_query_may_hold_braces_and_addresses() -> None:
    query = "SELECT JSON '{\"A\": 1}', 'gs://x' FROM t -- {ABC}"
    assert config(f"bigquery: {query}").data.queried == ["interactions"]


class TestInAPipeline:
    """A project whose events are a query."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_two_clubs(
            tmp_path,
            events={"files": f"bigquery: {EVENTS}"},
            ingest={"bigquery": {"project": "shop"}},
        )

    def test_query_is_no_path(self, path: Path) -> None:
        loaded = load(str(path))
        assert loaded.ingestion.data.interactions == f"bigquery: {EVENTS}"
        assert loaded.ingestion.data.queries == str(path.parent.parent / "users.csv")
        assert at_run_time(loaded.ingestion, "gs://x").data.interactions == f"bigquery: {EVENTS}"

    def test_there_is_always_something_new_unless_the_text_counts(self, path: Path) -> None:
        assert input_state(load(str(path))) != input_state(load(str(path)))
        by_text = load(str(path), ["ingest.bigquery.execute=new_text"])
        assert input_state(by_text) == input_state(by_text)

    def test_schema_is_inferred(self, path: Path, reader: type[FakeReader], tmp_path: Path) -> None:
        reader.rows[EVENTS] = [
            {"user": f"user {i % 3}", "item": "item é1", "time": _moment(i)} for i in range(9)
        ]
        observed = write_inferred_schema(load(str(path)), tmp_path / "new.pbtxt")
        assert observed.sources["interactions"].num_rows == 9

    def test_events_need_times(self, path: Path) -> None:
        with pytest.raises(ConfigError, match="whose rows have no order"):
            load(str(path), ["events.timestamp=null", "split.method=leave_last_out"])
