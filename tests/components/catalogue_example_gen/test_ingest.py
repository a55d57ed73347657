from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from components.catalogue_example_gen.ingest import ingest_catalogue
from components.interactions.buckets import Sizing
from components.interactions.config import DataConfig, IngestConfig, SplitConfig
from components.interactions.errors import BadRowsError, NoInputError
from components.interactions.ingest import ingest
from components.interactions.sources import bigquery
from models.features.spec import FeatureSpec

# With so small buckets the candidates of one file fall into several.
TINY = Sizing(block_bytes=64, bucket_bytes=16, batch_events=3)
SPEC = FeatureSpec.model_validate(
    {
        "columns": {"query_id": "q", "candidate_id": "c"},
        "features": {"candidate": {"kind_of": {"kind": "categorical"}}},
    }
)


def pipeline() -> beam.Pipeline:
    return beam.Pipeline(argv=["--runner=DirectRunner", "--direct_running_mode=in_memory"])


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., IngestConfig]:
    """A use whose training events know `event-only`, which the catalogue lacks."""
    events = [f"{user},{item}" for user in "uvw" for item in ("a", "b", "event-only", "d")]
    (tmp_path / "events.csv").write_text("q,c\n" + "\n".join(events) + "\n")
    (tmp_path / "items.csv").write_text("c,kind_of\na,x\nb,y\nd,x\nunseen,y\n")

    def make(items: str = "items.csv", **data: Any) -> IngestConfig:
        return IngestConfig(
            data=DataConfig(
                interactions=str(tmp_path / "events.csv"),
                candidates=str(tmp_path / items),
                **data,
            ),
            split=SplitConfig(method="leave_last_out"),
            spec=SPEC,
        )

    return make


@pytest.fixture
def fitted_report(config: Callable[..., IngestConfig], tmp_path: Path) -> str:
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


def refresh(config: IngestConfig, fitted_report: str, tmp_path: Path) -> dict[str, Any]:
    folders = [str(tmp_path / "new" / name) for name in ("examples", "rejected", "report")]
    return ingest_catalogue(config, fitted_report, *folders, pipeline, TINY)


def test_rows_come_and_go_with_the_file_and_event_candidates_stay(
    config: Callable[..., IngestConfig], fitted_report: str, tmp_path: Path
) -> None:
    # b and unseen are gone, a has changed, e is new; the file never held event-only.
    (tmp_path / "now.csv").write_text("c,kind_of\ne,z\na,y\nd,x\n")
    report = refresh(config("now.csv"), fitted_report, tmp_path)
    assert candidates(tmp_path / "new" / "examples") == {
        "a": [b"y"],
        "d": [b"x"],
        "e": [b"z"],
        "event-only": [],
    }
    assert report["candidates"] == 4
    assert report["candidates_added_from_train_events"] == 1
    names = [path.name for path in (tmp_path / "new" / "examples").iterdir()]
    assert names == ["Split-candidates"]
    added = pq.read_table(tmp_path / "new" / "report" / "added_candidates.parquet")
    assert added.to_pydict() == {"candidate_id": ["event-only"]}


def test_an_unchanged_catalogue_gives_the_candidates_of_the_run(
    config: Callable[..., IngestConfig], fitted_report: str, tmp_path: Path
) -> None:
    refresh(config(), fitted_report, tmp_path)
    before = candidates(tmp_path / "fitted" / "examples")
    assert candidates(tmp_path / "new" / "examples") == before
    assert set(before) == {"a", "b", "d", "unseen", "event-only"}


def test_an_event_candidate_that_the_file_has_now_comes_once_with_its_features(
    config: Callable[..., IngestConfig], fitted_report: str, tmp_path: Path
) -> None:
    (tmp_path / "now.csv").write_text("c,kind_of\nevent-only,x\n")
    refresh(config("now.csv"), fitted_report, tmp_path)
    assert candidates(tmp_path / "new" / "examples") == {"event-only": [b"x"]}


def test_bad_rows_and_missing_files_are_errors_that_leave_nothing(
    config: Callable[..., IngestConfig], fitted_report: str, tmp_path: Path
) -> None:
    (tmp_path / "now.csv").write_text("c,kind_of\n,x\n")
    with pytest.raises(BadRowsError, match=r"now\.csv"):
        refresh(config("now.csv"), fitted_report, tmp_path)
    assert list((tmp_path / "new" / "examples").iterdir()) == []
    with pytest.raises(NoInputError, match=r"nothing\.csv"):
        refresh(config("nothing.csv"), fitted_report, tmp_path)
    with pytest.raises(NoInputError, match=r"added_candidates\.parquet is missing"):
        refresh(config(), str(tmp_path), tmp_path)
    data = config().data.model_copy(update={"candidates": None})
    without = config().model_copy(update={"data": data})
    with pytest.raises(NoInputError, match=r"candidates\.file"):
        refresh(without, fitted_report, tmp_path)


def test_catalogue_may_be_a_query(
    config: Callable[..., IngestConfig],
    fitted_report: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    class FakeReader(beam.PTransform):
        def __init__(self, query: str, **_: Any):
            super().__init__()
            self._query = query

        def expand(self, pipeline: Any) -> Any:
            assert self._query == "SELECT 1"
            return pipeline | beam.Create([{"c": "new", "kind_of": "x"}])

    monkeypatch.setattr(bigquery, "load_reader", lambda: bigquery.Reader(FakeReader, None))
    data = config().data.model_dump() | {
        "candidates": "bigquery: SELECT 1",
        "bigquery": {"project": "shop"},
    }
    of_query = config().model_copy(update={"data": DataConfig.model_validate(data)})
    folders = [str(tmp_path / "new" / name) for name in ("examples", "rejected", "report")]
    report = ingest_catalogue(of_query, fitted_report, *folders, pipeline, TINY)
    assert report["candidates"] == 2  # and the one that only events have
