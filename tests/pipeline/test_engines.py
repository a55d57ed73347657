"""The components that are Beam pipelines, on each engine that runs on one machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tfx.types import Artifact
from tfx.utils import path_utils

from components.stock import in_process
from models.input.raw_examples import split_files
from models.towers.export import EMBEDDING_KEY
from models.towers.saved_towers import SavedTowers
from pipeline.config.file import load
from pipeline.runs.run import run_single_component
from tests.builders import read_numbers
from tests.pipeline.two_clubs import write_two_clubs
from tests.pipeline.worker_pools import worker_pools

pytestmark = pytest.mark.long
INGESTION = ("TimelineExampleGen",)
ANALYSIS = ("StatisticsGen", "ImportSchemaGen", "ExampleValidator", "Transform")
TRAINING = ("Trainer", "LastBlessedModel", "RetrievalEvaluator", "CandidateEmbedder")
ON_WORKERS = {"TimelineExampleGen", "StatisticsGen", "Transform", "CandidateEmbedder"}

Outputs = dict[str, Artifact]


def run(config: Path, names: tuple[str, ...], *overrides: str) -> Outputs:
    """Run components and return the first artifact of each output."""
    loaded = load(str(config), overrides)
    outputs: Outputs = {}
    for name in names:
        for key, artifacts in run_single_component(loaded, name, "engine").outputs.items():
            outputs[key] = artifacts[0]
    return outputs


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_clubs(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="module")
def expected(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    return run(config, (*INGESTION, *ANALYSIS), f"runs={tmp_path_factory.mktemp('here')}")


@pytest.fixture(scope="module")
def found(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    folder = tmp_path_factory.mktemp("workers")
    with pytest.MonkeyPatch.context() as patched, worker_pools(folder) as engine:
        patched.setattr(in_process, "SMALL_BYTES", 0)
        settings = (f"runs={folder}/runs", "beam.runner=PortableRunner")
        outputs: Outputs = {}
        for name in (*INGESTION, *ANALYSIS, *TRAINING):
            before = sum(engine.started)
            outputs |= run(config, (name,), *settings, f"beam.options={engine.options}")
            assert (sum(engine.started) > before) == (name in ON_WORKERS), name
        assert all(engine.started), engine.started
    return outputs


def records(folder: Path) -> list[bytes]:
    files = [str(path) for path in sorted(folder.iterdir())]
    return list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())


def examples(outputs: Outputs, split: str) -> list[str]:
    folder = Path(outputs["examples"].uri, f"Split-{split}")
    return sorted(str(tf.train.Example.FromString(record)) for record in records(folder))


@pytest.mark.parametrize("engine", ["processes", "workers"])
def test_examples(
    config: Path, expected: Outputs, tmp_path: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    if engine == "processes":
        outputs = run(config, INGESTION, f"runs={tmp_path}", "beam.workers=2")
    else:
        outputs = request.getfixturevalue("found")
    for split in ("train", "eval", "candidates"):
        assert examples(outputs, split) == examples(expected, split) != []


def test_statistics(expected: Outputs, found: Outputs) -> None:
    for split in ("train", "eval", "candidates"):
        ours, theirs = (
            tfdv.load_stats_binary(
                str(Path(outputs["statistics"].uri, f"Split-{split}", "FeatureStats.pb"))
            ).datasets[0]
            for outputs in (expected, found)
        )
        assert theirs.num_examples == ours.num_examples > 0
        by_name = {feature.path.step[0]: feature for feature in theirs.features}
        assert by_name.keys() == {feature.path.step[0] for feature in ours.features}
        for feature in ours.features:
            other = by_name[feature.path.step[0]]
            assert other.type == feature.type
            if feature.WhichOneof("stats") == "string_stats":
                assert other.string_stats.unique == feature.string_stats.unique
            else:
                assert other.num_stats.mean == pytest.approx(feature.num_stats.mean)


@pytest.mark.parametrize("split", ["train", "candidates"])
def test_transformed_examples(expected: Outputs, found: Outputs, split: str) -> None:
    ours, theirs = (
        read_numbers(Path(outputs["transformed_examples"].uri, f"Split-{split}"))
        for outputs in (expected, found)
    )
    assert len(theirs) == len(ours) > 0
    for mine, other in zip(ours, theirs, strict=True):
        assert other.keys() == mine.keys()
        for name, values in mine.items():
            assert other[name] == pytest.approx(values, rel=1e-5), name


def test_embeddings(config: Path, found: Outputs) -> None:
    towers = SavedTowers(path_utils.serving_model_path(found["model"].uri), load(str(config)).spec)
    ids, vectors = towers.embed_catalogue(split_files(found["examples"].uri, "candidates"))
    table = pq.read_table(found["embeddings"].uri)
    rows = {item: row for row, item in enumerate(ids.tolist())}
    order = [rows[item] for item in table.column("item").to_pylist()]
    assert sorted(order) == list(range(60))
    written = np.stack(table.column(EMBEDDING_KEY).to_pylist())
    np.testing.assert_allclose(written, vectors[order], rtol=1e-5, atol=1e-6)
