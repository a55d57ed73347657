"""The components that are Beam pipelines, on each engine, compared with the DirectRunner.

Small data has no need of Beam for statistics and transformation, which the tests make use it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_data_validation as tfdv
from tfx.types import Artifact
from tfx.utils import path_utils

from components.stock import in_process
from models.input.raw_examples import split_files
from models.towers.export import EMBEDDING_KEY
from models.towers.saved_towers import SavedTowers
from pipeline.config.file import load
from pipeline.releases.answering_model import AnsweringModel
from pipeline.runs.batch import recommend_all
from pipeline.runs.run import run_single_component
from tests.builders import read_examples, read_numbers, wait_for
from tests.engines.flink import Flink, flink_cluster, why_absent
from tests.engines.worker_pools import Engine, worker_pools
from tests.pipeline.two_clubs import ROOT, TWO_TOWER, write_two_clubs

pytestmark = pytest.mark.long
ENGINES = ["workers", pytest.param("flink", marks=pytest.mark.engines)]
INGESTION = ("TimelineExampleGen",)
ANALYSIS = ("StatisticsGen", "ImportSchemaGen", "ExampleValidator", "Transform")
TRAINING = ("Trainer", "LastBlessedModel", "RetrievalEvaluator")
INDEXING = ("CandidateEmbedder", "IndexBuilder")
IN_BEAM = {"TimelineExampleGen", "StatisticsGen", "Transform", "CandidateEmbedder"}
SPLITS = ("train", "eval", "candidates")
ANY_MODEL = ("training.epochs=1", "evaluation.min_lift=0", "evaluation.min_metrics={}")

Outputs = dict[str, Artifact]


class Project(NamedTuple):
    """A configuration, and settings that override it."""

    config: str
    settings: tuple[str, ...] = ()

    def run(self, names: tuple[str, ...], *settings: str) -> Outputs:
        """Run components and return the first artifact of each output."""
        loaded = load(self.config, (*self.settings, *settings))
        outputs: Outputs = {}
        for name in names:
            for key, artifacts in run_single_component(loaded, name, "engine").outputs.items():
                outputs[key] = artifacts[0]
        return outputs


@pytest.fixture(scope="module", autouse=True)
def _no_arguments() -> Iterator[None]:
    """Hide pytest's options from TFX, which parses the command line of its process."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.argv", ["pytest"])
        yield


@pytest.fixture(scope="module", params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flink]:
    if reason := why_absent():
        pytest.skip(reason)
    with flink_cluster(tmp_path_factory.mktemp("flink")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def engine(
    engine_name: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Engine]:
    if engine_name == "flink":
        yield request.getfixturevalue("flink").engine
        return
    with worker_pools(tmp_path_factory.mktemp("workers")) as started:
        yield started


@pytest.fixture(scope="module")
def project(engine_name: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    if engine_name == "workers":
        return Project(str(write_two_clubs(tmp_path_factory.mktemp("engines"))))
    command = [*TWO_TOWER, "data", "movielens-100k"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=600)
    return Project("movielens_100k", ANY_MODEL)


@pytest.fixture(scope="module")
def expected(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    return project.run((*INGESTION, *ANALYSIS), f"runs={tmp_path_factory.mktemp('here')}")


@pytest.fixture(scope="module")
def runs(project: Project, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The setting of the folder of the engine's run."""
    return f"runs={tmp_path_factory.mktemp('there')}"


@pytest.fixture(scope="module")
def found(engine: Engine, project: Project, runs: str) -> Outputs:
    outputs: Outputs = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(in_process, "SMALL_BYTES", 0)
        for name in (*INGESTION, *ANALYSIS, *TRAINING, *INDEXING):
            before = sum(engine.started)
            outputs |= project.run((name,), runs, *engine.settings)
            assert (sum(engine.started) > before) == (name in IN_BEAM), name
    assert all(engine.started), engine.started
    return outputs


def examples(outputs: Outputs, split: str) -> list[bytes]:
    return read_examples(Path(outputs["examples"].uri, f"Split-{split}"))


@pytest.mark.parametrize("split", SPLITS)
def test_examples(expected: Outputs, found: Outputs, split: str) -> None:
    assert examples(found, split) == examples(expected, split) != []


def test_examples_of_several_processes(tmp_path: Path) -> None:
    project = Project(str(write_two_clubs(tmp_path)))
    one = project.run(INGESTION, f"runs={tmp_path}/one")
    two = project.run(INGESTION, f"runs={tmp_path}/two", "beam.workers=2")
    for split in SPLITS:
        assert examples(two, split) == examples(one, split) != []


def test_statistics(expected: Outputs, found: Outputs) -> None:
    for split in SPLITS:
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


def test_vocabularies(expected: Outputs, found: Outputs) -> None:
    ours, theirs = (
        {
            path.name: path.read_bytes()
            for path in Path(outputs["transform_graph"].uri, "transform_fn", "assets").iterdir()
        }
        for outputs in (expected, found)
    )
    assert theirs == ours != {}


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


def test_embeddings(project: Project, found: Outputs) -> None:
    spec = load(project.config).spec
    towers = SavedTowers(path_utils.serving_model_path(found["model"].uri), spec)
    ids, vectors = towers.embed_catalogue(split_files(found["examples"].uri, "candidates"))
    table = pq.read_table(found["embeddings"].uri)
    rows = {item: row for row, item in enumerate(ids.tolist())}
    order = [rows[item] for item in table.column(spec.candidate_id).to_pylist()]
    assert sorted(order) == list(range(len(ids)))
    written = np.stack(table.column(EMBEDDING_KEY).to_pylist())
    np.testing.assert_allclose(written, vectors[order], rtol=1e-5, atol=1e-6)


def test_recommendations_in_files(
    engine: Engine, project: Project, runs: str, found: Outputs, tmp_path: Path
) -> None:
    model = AnsweringModel(path_utils.serving_model_path(found["retrieval_model"].uri), None, "")
    tables = []
    for name, settings in {"here": (), "there": engine.settings}.items():
        before = sum(engine.started)
        loaded = load(project.config, [*project.settings, runs, *settings])
        report = recommend_all(loaded, model, str(tmp_path / name), k=10)
        assert report["num_rows"] > 1000
        assert (sum(engine.started) > before) == (name == "there")
        tables.append(pq.read_table(tmp_path / name))
    here, there = tables
    assert there.drop(["score"]).equals(here.drop(["score"]))
    np.testing.assert_allclose(there["score"], here["score"], rtol=1e-5)


@pytest.mark.engines
def test_ingestion_survives_a_killed_task_manager(flink: Flink, tmp_path: Path) -> None:
    project = Project(str(write_two_clubs(tmp_path)))
    expected = project.run(INGESTION, f"runs={tmp_path}/here")
    num_restarts = flink.num_restarts()
    with ThreadPoolExecutor(1) as thread:
        settings = f"runs={tmp_path}/there", *flink.engine.settings
        running = thread.submit(project.run, INGESTION, *settings)
        wait_for(lambda: [*tmp_path.glob("there/*/artifacts/*/examples/*/.spill/*")], 600)
        flink.kill_task_manager()
        found = running.result(timeout=600)
    assert flink.num_restarts() > num_restarts
    for split in SPLITS:
        assert examples(found, split) == examples(expected, split) != []
    # The attempt that was killed has left nothing behind.
    names, expected_names = (
        sorted(path.name for path in Path(outputs["examples"].uri).rglob("*"))
        for outputs in (found, expected)
    )
    assert names == expected_names
