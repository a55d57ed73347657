"""Small inputs on disk, and ingestion through a real Beam pipeline."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import settings

from components.interactions.buckets import Sizing
from components.interactions.config import DataConfig, IngestConfig, SplitConfig
from components.interactions.ingest import OutputFolders, ingest, ingest_catalogue
from models.features.spec import ColumnsConfig, FeatureConfig, FeaturesConfig, FeatureSpec

# The machine may be busy, and the tests do not measure time.
settings.register_profile("without-deadline", deadline=None)
settings.load_profile("without-deadline")

# u: a b c d, v: b c, w: a; time runs against the order of the file for u.
EVENTS = "q,c,t\nu,d,40\nv,b,10\nu,a,10\nu,c,30\nw,a,50\nv,c,20\nu,b,20\n"
FEATURES = FeaturesConfig(
    query={"age": FeatureConfig(kind="numeric"), "country": FeatureConfig(kind="categorical")},
    candidate={
        "title": FeatureConfig(kind="text"),
        "genres": FeatureConfig(kind="categorical", separator="|", column="kinds"),
    },
)
IN_MEMORY = ("--runner=DirectRunner", "--direct_running_mode=in_memory")


def values(feature: tf.train.Feature) -> list[Any]:
    if feature.HasField("bytes_list"):
        return [value.decode() for value in feature.bytes_list.value]
    if feature.HasField("float_list"):
        return list(feature.float_list.value)
    return list(feature.int64_list.value)


@dataclass
class Ingested:
    """The outputs of an ingestion."""

    folder: Path
    report: dict[str, Any]

    def files(self, split: str) -> list[Path]:
        return sorted((self.folder / "examples" / f"Split-{split}").iterdir())

    def examples(self, split: str) -> list[dict[str, list[Any]]]:
        return [
            {
                key: values(feature)
                for key, feature in tf.train.Example.FromString(record).features.feature.items()
            }
            for path in self.files(split)
            for record in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator()
        ]

    def timelines(self, split: str) -> dict[str, list[Any]]:
        """Candidates and targets by query: `a` is history, `a*` a target; windows in sequence."""
        found: dict[str, list[Any]] = {}
        for example in self.examples(split):
            marked = [
                candidate + "*" * target
                for candidate, target in zip(example["c"], example["is_target"], strict=True)
            ]
            found.setdefault(example["q"][0], []).append(" ".join(marked))
        return {query: parts[0] if len(parts) == 1 else parts for query, parts in found.items()}

    def candidates(self) -> list[str]:
        return sorted(example["c"][0] for example in self.examples("candidates"))

    def rejected(self) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / "rejected" / "rejected.parquet").to_pylist()


class Ingestion:
    """Runs ingestions of files in one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._runs = 0

    def write(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def config(
        self,
        interactions: str,
        split: SplitConfig | None = None,
        *,
        timestamp: str | None = "t",
        rating: str | None = None,
        features: FeaturesConfig | None = None,
        columns: dict[str, str] | None = None,
        **data: Any,
    ) -> IngestConfig:
        """Settings for columns q, c and t; files are named relative to the folder."""
        data = {"max_unmatched_ids": 1.0, **data}  # Many small inputs lack rows.
        for key in ("candidates", "queries"):
            if key in data:
                data[key] = str(self.folder / data[key])
        return IngestConfig(
            data=DataConfig(interactions=str(self.folder / interactions), **data),
            split=split or SplitConfig(method="leave_last_out"),
            spec=FeatureSpec(
                columns=ColumnsConfig(
                    query_id="q",
                    candidate_id="c",
                    timestamp=timestamp,
                    rating=rating,
                    **(columns or {}),
                ),
                features=features or FeaturesConfig(),
            ),
        )

    def run(
        self,
        config: IngestConfig,
        sizing: Sizing = Sizing(),
        options: tuple[str, ...] = IN_MEMORY,
        fitted: Ingested | None = None,
    ) -> Ingested:
        """Ingest everything or, for a model that was fitted earlier, only the catalogue."""
        self._runs += 1
        folder = self.folder / f"run-{self._runs}"
        outputs = OutputFolders(*(str(folder / name) for name in OutputFolders._fields))
        run: Any = ingest
        if fitted is not None:
            run = partial(ingest_catalogue, trained_report=str(fitted.folder / "report"))
        report = run(
            config,
            outputs=outputs,
            make_pipeline=lambda: beam.Pipeline(argv=list(options)),
            sizing=sizing,
        )
        return Ingested(folder, report)

    def __call__(self, interactions: str, split: SplitConfig | None = None, **options: Any) -> Any:
        sizing = options.pop("sizing", Sizing())
        return self.run(self.config(interactions, split, **options), sizing)


@pytest.fixture
def ingestion(tmp_path: Path) -> Ingestion:
    return Ingestion(tmp_path)


@pytest.fixture(scope="session")
def new_ingestion(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Ingestion]:
    """For property tests, which need a new folder for each example."""
    return lambda: Ingestion(tmp_path_factory.mktemp("ingestion"))
