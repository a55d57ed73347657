"""Statistics without Beam, compared with those of the stock executor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.components.statistics_gen import executor as stock
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact

from components.stock import in_process
from components.stock import statistics_gen as ours
from tests.builders import Row, artifact, examples_artifact, executor_context

OPTIONS = tfdv.StatsOptions(use_sketch_based_topk_uniques=True)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    def row(number: int) -> Row:
        items = [b"i%d" % (number % n) for n in range(1, 6)]
        return {"item": items, "age": [] if number % 3 == 0 else [float(number % 90)]}

    # More than one batch in one split.
    splits = {"train": 2500, "candidates": 7}
    rows = {split: [row(number) for number in range(count)] for split, count in splits.items()}
    return examples_artifact(tmp_path_factory.mktemp("examples"), **rows)


def run(
    executor: type[stock.Executor], examples: Artifact, folder: Path
) -> dict[str, statistics_pb2.DatasetFeatureStatistics]:
    output = artifact(standard_artifacts.ExampleStatistics, folder / "statistics")
    executor(executor_context(folder)).Do(
        {"examples": [examples]},
        {"statistics": [output]},
        {"stats_options_json": OPTIONS.to_json(), "exclude_splits": "[]"},
    )
    computed = {}
    for split in artifact_utils.decode_split_names(output.split_names):
        path = os.path.join(artifact_utils.get_split_uri([output], split), "FeatureStats.pb")
        [computed[split]] = tfdv.load_stats_binary(path).datasets
    return computed


def test_it_computes_what_the_stock_executor_computes(examples: Artifact, tmp_path: Path):
    expected = run(stock.Executor, examples, tmp_path / "stock")
    computed = run(ours.Executor, examples, tmp_path / "small")
    assert computed.keys() == expected.keys() == {"train", "candidates"}
    for split, statistics in expected.items():
        computed_by_name = {feature.path.step[0]: feature for feature in computed[split].features}
        assert computed[split].num_examples == statistics.num_examples
        assert computed_by_name.keys() == {"item", "age"}
        for feature in statistics.features:
            own = computed_by_name[feature.path.step[0]]
            assert own.type == feature.type
            kind = feature.WhichOneof("stats")
            assert getattr(own, kind).common_stats.num_missing == (
                getattr(feature, kind).common_stats.num_missing
            )
            if kind == "string_stats":
                assert own.string_stats.unique == feature.string_stats.unique
                assert list(own.string_stats.top_values) == list(feature.string_stats.top_values)
            else:
                assert own.num_stats.mean == pytest.approx(feature.num_stats.mean)
                assert own.num_stats.max == feature.num_stats.max


@pytest.mark.parametrize(
    ("small_bytes", "properties"), [(1, {}), (2**30, {"exclude_splits": '["train"]'})]
)
def test_large_data_and_other_settings_go_to_the_stock_executor(
    examples: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_bytes: int,
    properties: dict[str, str],
):
    asked = []
    monkeypatch.setattr(stock.Executor, "Do", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(in_process, "SMALL_BYTES", small_bytes)
    output = artifact(standard_artifacts.ExampleStatistics, tmp_path)
    context = executor_context(tmp_path, "--direct_num_workers=2")
    ours.Executor(context).Do({"examples": [examples]}, {"statistics": [output]}, properties)
    assert len(asked) == 1


def test_large_data_stays_here_if_beam_has_no_other_process(
    examples: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(in_process, "SMALL_BYTES", 1)
    monkeypatch.setattr(stock.Executor, "Do", lambda *arguments: pytest.fail("went to Beam"))
    computed = run(ours.Executor, examples, tmp_path)
    assert computed["train"].num_examples == 2500
