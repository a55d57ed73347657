"""Statistics without Beam beside those of the stock executor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.components.statistics_gen import executor as stock
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_artifacts

from components.stock import in_process
from components.stock import statistics_gen as ours

OPTIONS = tfdv.StatsOptions(use_sketch_based_topk_uniques=True)


def example(number: int) -> bytes:
    item = tf.train.Feature(
        bytes_list=tf.train.BytesList(value=[b"i%d" % (number % n) for n in range(1, 6)])
    )
    age = tf.train.Feature(
        float_list=tf.train.FloatList(value=[] if number % 3 == 0 else [number % 90])
    )
    features = tf.train.Features(feature={"item": item, "age": age})
    return bytes(tf.train.Example(features=features).SerializeToString())


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> standard_artifacts.Examples:
    artifact = standard_artifacts.Examples()
    artifact.uri = str(tmp_path_factory.mktemp("examples"))
    artifact.split_names = artifact_utils.encode_split_names(["train", "candidates"])
    artifact.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    # More than one batch in one split.
    for split, count in (("train", 2500), ("candidates", 7)):
        folder = Path(artifact.uri, f"Split-{split}")
        folder.mkdir()
        with tf.io.TFRecordWriter(str(folder / "data-00000-of-00001.gz"), "GZIP") as writer:
            for number in range(count):
                writer.write(example(number))
    return artifact


def run(
    executor: type[stock.Executor],
    examples: standard_artifacts.Examples,
    folder: Path,
) -> dict[str, statistics_pb2.DatasetFeatureStatistics]:
    output = standard_artifacts.ExampleStatistics()
    output.uri = str(folder / "statistics")
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=[], tmp_dir=str(folder), unique_id="1"
    )
    executor(context).Do(
        {"examples": [examples]},
        {"statistics": [output]},
        {"stats_options_json": OPTIONS.to_json(), "exclude_splits": "[]"},
    )
    computed = {}
    for split in artifact_utils.decode_split_names(output.split_names):
        path = os.path.join(artifact_utils.get_split_uri([output], split), "FeatureStats.pb")
        [computed[split]] = tfdv.load_stats_binary(path).datasets
    return computed


def test_it_computes_what_the_stock_executor_computes(
    examples: standard_artifacts.Examples, tmp_path: Path
):
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
    examples: standard_artifacts.Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_bytes: int,
    properties: dict[str, str],
):
    asked = []
    monkeypatch.setattr(stock.Executor, "Do", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(in_process, "SMALL_BYTES", small_bytes)
    output = standard_artifacts.ExampleStatistics()
    output.uri = str(tmp_path)
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--direct_num_workers=2"], tmp_dir=str(tmp_path), unique_id="1"
    )
    ours.Executor(context).Do({"examples": [examples]}, {"statistics": [output]}, properties)
    assert len(asked) == 1


def test_large_data_stays_here_where_beam_has_no_other_process(
    examples: standard_artifacts.Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(in_process, "SMALL_BYTES", 1)
    monkeypatch.setattr(stock.Executor, "Do", lambda *arguments: pytest.fail("went to Beam"))
    computed = run(ours.Executor, examples, tmp_path)
    assert computed["train"].num_examples == 2500
