"""Ingestion with input, temporary files and output in an object store."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.interactions.buckets import Sizing
from components.interactions.config import IngestConfig, SpansConfig, SplitConfig
from components.interactions.errors import NoInputError
from components.interactions.ingest import OutputFolders, ingest
from components.interactions.sources.files import find_files, fingerprint
from components.interactions.sources.tfrecord import frame
from models.features.spec import FeatureConfig, FeaturesConfig
from tests.components.interactions.conftest import IN_MEMORY, Ingested
from tests.components.interactions.object_store import ObjectStore
from tests.components.interactions.sources.test_tfrecord import example

BUCKET = "obj://bucket"
TINY = Sizing(block_bytes=2048, bucket_bytes=8192, batch_events=50)
FEATURES = FeaturesConfig(
    query={"country": FeatureConfig(kind="categorical")},
    candidate={"genres": FeatureConfig(kind="categorical", separator="|")},
)


def events(first: int) -> bytes:
    rows = (f"u{n % 37},i{n % 23},{n}\n" for n in range(first, first + 1000))
    return gzip.compress(f"q,c,t\n{''.join(rows)}".encode())


@pytest.fixture
def local(ingestion: Any) -> Iterator[IngestConfig]:
    """Settings for files on this machine, of which the store has copies."""
    folder: Path = ingestion.folder
    for name, first in (("1/v1", 0), ("2/v1", 7), ("2/v2", 1000), ("x2/v1", 0)):
        (folder / f"day-{name}").mkdir(parents=True)
        ingestion.write(f"day-{name}/e.csv.gz", events(first))
    films = pa.table({"c": [f"i{n}" for n in range(30)], "genres": [["a", "b"], ["c"], None] * 10})
    pq.write_table(films, folder / "films.parquet", row_group_size=7)
    people = [example({"q": f"u{n}", "country": "CH" if n % 2 else None}) for n in range(37)]
    ingestion.write("people-00000-of-00001", b"".join(frame(record) for record in people))
    for path in folder.rglob("*"):
        if path.is_file():
            ObjectStore.objects[f"{BUCKET}/in/{path.relative_to(folder)}"] = path.read_bytes()
    yield ingestion.config(
        "day-{SPAN}/v{VERSION}/*.csv.gz",
        SplitConfig(method="temporal", eval_fraction=0.2),
        features=FEATURES,
        candidates="films.parquet",
        queries="people-*",
        spans=SpansConfig(window=2),
    )
    ObjectStore.objects.clear()


def in_store(config: IngestConfig, folder: Path) -> IngestConfig:
    moved = {
        source: getattr(config.data, source).replace(str(folder), f"{BUCKET}/in")
        for source in ("interactions", "candidates", "queries")
    }
    return config.model_copy(update={"data": config.data.model_copy(update=moved)})


def test_ingestion_on_another_filesystem_writes_what_it_writes_here(
    ingestion: Any, local: IngestConfig, tmp_path: Path
) -> None:
    config = in_store(local, ingestion.folder)
    before = set(ObjectStore.objects)
    report = ingest(
        config,
        OutputFolders(*(f"{BUCKET}/run/{name}" for name in OutputFolders._fields)),
        lambda: beam.Pipeline(argv=list(IN_MEMORY)),
        TINY,
    )
    written = set(ObjectStore.objects) - before
    assert not [path for path in written if ".spill" in path]
    for path in written:
        target = tmp_path / "fetched" / path.removeprefix(f"{BUCKET}/run/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(ObjectStore.objects[path])
    remote = Ingested(tmp_path / "fetched", report)
    here = ingestion.run(local, TINY)
    for split in ("train", "eval", "candidates"):
        assert len(remote.files(split)) == len(here.files(split))
        assert remote.examples(split) == here.examples(split)
    assert len(remote.files("train")) > 1
    assert remote.rejected() == here.rejected() == []
    unread = report["spans"].pop("unread")
    assert unread == {"interactions": {"files": 1, "first": [f"{BUCKET}/in/day-x2/v1/e.csv.gz"]}}
    here.report["spans"].pop("unread")
    assert report == here.report
    assert [found["version"] for found in report["spans"]["interactions"]] == [1, 2]


def test_the_times_of_100_000_objects_spare_reading_them(
    ingestion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ingestion.config("e.csv")
    data = config.data.model_copy(update={"interactions": f"{BUCKET}/many/*.csv"})
    config = config.model_copy(update={"data": data})
    objects = {f"{BUCKET}/many/{number:06d}.csv": b"q,c\n" for number in range(100_000)}
    monkeypatch.setattr(ObjectStore, "objects", objects)
    monkeypatch.setattr(ObjectStore, "open", lambda *_: pytest.fail("an object was read"))
    found = []
    started = time.process_time()
    for updated_s in (1.0, 2.0):
        monkeypatch.setattr(ObjectStore, "updated_s", updated_s)
        found.append(fingerprint(config))
    assert time.process_time() - started < 20.0
    assert found[0] != found[1]


def test_contents_replace_the_times_that_a_store_does_not_have(
    ingestion: Any, local: IngestConfig
) -> None:
    config = in_store(local, ingestion.folder)
    first = fingerprint(config)
    assert fingerprint(config) == first
    path, content = next((p, c) for p, c in ObjectStore.objects.items() if "day" in p)
    ObjectStore.objects[path] = content[::-1]
    assert fingerprint(config) != first


def test_a_missing_object_is_an_error(ingestion: Any, local: IngestConfig) -> None:
    ObjectStore.objects.clear()
    with pytest.raises(NoInputError, match=r"no file matches obj://bucket/in/day"):
        find_files(in_store(local, ingestion.folder))
