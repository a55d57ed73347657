from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from components.interactions.buckets import Sizing
from components.interactions.config import DataConfig, IngestConfig, SplitConfig
from components.interactions.errors import BadRowsError, NoInputError
from components.interactions.ingest import ingest, ingest_catalogue
from components.interactions.sources import bigquery
from tests.builders import feature_spec

# With so small buckets the candidates of one file fall into several.
TINY = Sizing(block_bytes=64, bucket_bytes=16, batch_events=3)
SPEC = feature_spec(candidate={"kind_of": {"kind": "categorical"}}, query_id="q", candidate_id="c")
Config = Callable[..., IngestConfig]
Refresh = Callable[..., dict[str, Any]]


def pipeline() -> beam.Pipeline:
    return beam.Pipeline(argv=["--runner=DirectRunner", "--direct_running_mode=in_memory"])


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A project with training events of `event-only`, which the catalogue lacks."""
    events = [f"{user},{item}" for user in "uvw" for item in ("a", "b", "event-only", "d")]
    (tmp_path / "events.csv").write_text("q,c\n" + "\n".join(events) + "\n")
    (tmp_path / "items.csv").write_text("c,kind_of\na,x\nb,y\nd,x\nunseen,y\n")

    def make(items: str = "items.csv", **data: Any) -> IngestConfig:
        return IngestConfig(
            data=DataConfig(
                interactions=str(tmp_path / "events.csv"), candidates=str(tmp_path / items), **data
            ),
            split=SplitConfig(method="leave_last_out"),
            spec=SPEC,
        )

    return make


@pytest.fixture
def fitted_report(config: Config, tmp_path: Path) -> str:
    folders = [str(tmp_path / "fitted" / name) for name in ("examples", "rejected", "report")]
    ingest(config(), *folders, pipeline, TINY)
    return folders[-1]


def candidates(folder: Path) -> dict[str, list[bytes]]:
    files = [str(path) for path in (folder / "Split-candidates").iterdir()]
    found = {}
    for record in tf.data.TFRecordDataset(files, compression_type="GZIP"):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        [name] = feature["c"].bytes_list.value
        assert name.decode() not in found
        found[name.decode()] = list(feature["kind_of"].bytes_list.value)
    return found


@pytest.fixture
def refresh(fitted_report: str, tmp_path: Path) -> Refresh:
    def run(config: IngestConfig, report: str = fitted_report) -> dict[str, Any]:
        folders = [str(tmp_path / "new" / name) for name in ("examples", "rejected", "report")]
        return ingest_catalogue(config, report, *folders, pipeline, TINY)

    return run


def test_rows_come_and_go_with_the_file_and_event_candidates_stay(
    config: Config, refresh: Refresh, tmp_path: Path
) -> None:
    # b and unseen are gone, a has changed, e is new; the file never held event-only.
    (tmp_path / "now.csv").write_text("c,kind_of\ne,z\na,y\nd,x\n")
    report = refresh(config("now.csv"))
    expected = {"a": [b"y"], "d": [b"x"], "e": [b"z"], "event-only": []}
    assert candidates(tmp_path / "new" / "examples") == expected
    assert report["candidates"] == 4
    assert report["candidates_added_from_train_events"] == 1
    names = [path.name for path in (tmp_path / "new" / "examples").iterdir()]
    assert names == ["Split-candidates"]
    added = pq.read_table(tmp_path / "new" / "report" / "added_candidates.parquet")
    assert added.to_pydict() == {"candidate_id": ["event-only"]}


def test_an_unchanged_catalogue_gives_the_candidates_of_the_run(
    config: Config, refresh: Refresh, tmp_path: Path
) -> None:
    refresh(config())
    before = candidates(tmp_path / "fitted" / "examples")
    assert candidates(tmp_path / "new" / "examples") == before
    assert set(before) == {"a", "b", "d", "unseen", "event-only"}


def test_an_event_candidate_that_the_file_has_now_comes_once_with_its_features(
    config: Config, refresh: Refresh, tmp_path: Path
) -> None:
    (tmp_path / "now.csv").write_text("c,kind_of\nevent-only,x\n")
    refresh(config("now.csv"))
    assert candidates(tmp_path / "new" / "examples") == {"event-only": [b"x"]}


def test_bad_rows_and_missing_files_are_errors_that_leave_nothing(
    config: Config, refresh: Refresh, tmp_path: Path
) -> None:
    (tmp_path / "now.csv").write_text("c,kind_of\n,x\n")
    with pytest.raises(BadRowsError, match=r"now\.csv"):
        refresh(config("now.csv"))
    assert list((tmp_path / "new" / "examples").iterdir()) == []
    with pytest.raises(NoInputError, match=r"nothing\.csv"):
        refresh(config("nothing.csv"))
    with pytest.raises(NoInputError, match=r"added_candidates\.parquet is missing"):
        refresh(config(), str(tmp_path))
    data = config().data.model_copy(update={"candidates": None})
    with pytest.raises(NoInputError, match=r"candidates\.file"):
        refresh(config().model_copy(update={"data": data}))


def test_catalogue_may_be_a_query(
    config: Config, refresh: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeReader(beam.PTransform):
        def __init__(self, query: str, **_: Any):
            super().__init__()
            self._query = query

        def expand(self, pipeline: Any) -> Any:
            assert self._query == "SELECT 1"
            return pipeline | beam.Create([{"c": "new", "kind_of": "x"}])

    monkeypatch.setattr(bigquery, "load_reader", lambda: (FakeReader, None))
    queried = {"candidates": "bigquery: SELECT 1", "bigquery": {"project": "shop"}}
    data = DataConfig.model_validate(config().data.model_dump() | queried)
    report = refresh(config().model_copy(update={"data": data}))
    assert report["candidates"] == 2  # and the one that only events have
