"""Transformed without Beam beside what the stock executor transforms."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import tensorflow as tf
from apache_beam.transforms import util
from google.protobuf import json_format, text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.transform import executor as stock
from tfx.dsl.components.base import base_beam_executor
from tfx.proto import example_gen_pb2, transform_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.stock import in_process
from components.stock.transform import Executor
from models.features.preprocessing import QUERY_VOCABULARY_KEY, SPEC_KEY
from models.features.spec import FeatureSpec

SPEC = FeatureSpec.model_validate(
    {
        "columns": {"query_id": "user", "candidate_id": "item"},
        "features": {
            "query": {"age": {"kind": "numeric"}},
            "candidate": {"genres": {"kind": "categorical", "separator": "|"}},
        },
    }
)
SCHEMA = """
feature { name: "user" type: BYTES } feature { name: "item" type: BYTES }
feature { name: "age" type: FLOAT } feature { name: "genres" type: BYTES }
"""
TRAIN = [
    {"user": [b"u1"], "item": [b"a", b"b", b"c d"], "age": [30.0]},
    {"user": [b"u2"], "item": [b"b"], "age": []},
]
CANDIDATES = [
    {"item": [name], "genres": genres}
    for name, genres in ((b"a", [b"x", b"y"]), (b"b", []), (b"c d", [b"x"]))
]


def example(row: dict[str, list[Any]]) -> tf.train.Example:
    features = {}
    for name, values in row.items():
        if values and isinstance(values[0], float):
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        elif name == "age":
            features[name] = tf.train.Feature(float_list=tf.train.FloatList())
        else:
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    return tf.train.Example(features=tf.train.Features(feature=features))


def transformed(
    executor: type[stock.Executor], folder: Path, train: list[dict[str, list[Any]]] = TRAIN
) -> dict[str, list[Any]]:
    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "examples")
    examples.split_names = artifact_utils.encode_split_names(["train", "candidates"])
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    for split, rows in (("train", train), ("candidates", CANDIDATES)):
        part = Path(examples.uri, f"Split-{split}")
        part.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(part / "data-00000-of-00001.gz"), "GZIP") as writer:
            for row in rows:
                writer.write(example(row).SerializeToString())
    schema = standard_artifacts.Schema()
    schema.uri = str(folder / "schema")
    Path(schema.uri).mkdir()
    parsed = text_format.Parse(SCHEMA, schema_pb2.Schema())
    Path(schema.uri, "schema.pbtxt").write_text(text_format.MessageToString(parsed))
    graph, output = standard_artifacts.TransformGraph(), standard_artifacts.Examples()
    graph.uri, output.uri = str(folder / "graph"), str(folder / "transformed")
    splits = transform_pb2.SplitsConfig(
        analyze=["train", "candidates"], transform=["train", "candidates"]
    )
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=[], tmp_dir=str(folder), unique_id="1"
    )
    executor(context).Do(
        {"examples": [examples], "schema": [schema]},
        {"transform_graph": [graph], "transformed_examples": [output]},
        {
            "preprocessing_fn": "models.features.preprocessing.preprocessing_fn",
            "splits_config": json_format.MessageToJson(splits, preserving_proto_field_name=True),
            "custom_config": json.dumps(
                {SPEC_KEY: SPEC.model_dump(mode="json"), QUERY_VOCABULARY_KEY: True}
            ),
            "disable_statistics": 1,
        },
    )
    assert artifact_utils.decode_split_names(output.split_names) == ["train", "candidates"]
    return {split: read(Path(output.uri, f"Split-{split}")) for split in ("train", "candidates")}


def read(folder: Path) -> list[dict[str, list[float]]]:
    files = [str(path) for path in sorted(folder.iterdir())]
    rows = []
    for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        rows.append(
            {
                name: list(values.int64_list.value or values.float_list.value)
                for name, values in feature.items()
            }
        )
    return sorted(rows, key=lambda row: sorted(row.items()))


@pytest.mark.slow
def test_it_transforms_as_the_stock_executor_does(tmp_path: Path):
    expected = transformed(stock.Executor, tmp_path / "stock")
    assert [len(rows) for rows in expected.values()] == [len(TRAIN), len(CANDIDATES)]
    assert transformed(Executor, tmp_path / "small") == expected


@pytest.mark.slow
def test_a_slow_machine_has_the_same_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    train = [
        {"user": [b"u"], "item": [b"a"], "age": [chance.gauss(1990.0, 15.0)]} for _ in range(2500)
    ]
    fast = transformed(Executor, tmp_path / "fast", train)
    # What Beam learns from slow batches: smaller ones are enough.
    monkeypatch.setattr(
        util._BatchSizeEstimator, "next_batch_size", lambda self: max(self._min_batch_size, 7)
    )
    assert transformed(Executor, tmp_path / "slow", train) == fast


def test_large_data_goes_to_the_stock_executor_in_batches_of_the_datas_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def do(self: Any, inputs: Any, outputs: Any, properties: Any) -> None:
        batch = stock.TransformProcessor()._GetDesiredBatchSize(
            example_gen_pb2.FORMAT_TF_EXAMPLE, schema_pb2.Schema()
        )
        asked.append((outputs, batch))

    monkeypatch.setattr(stock.Executor, "Do", do)
    monkeypatch.setattr(in_process, "SMALL_BYTES", 1)
    examples = standard_artifacts.Examples()
    examples.uri = str(tmp_path)
    examples.split_names = artifact_utils.encode_split_names(["train"])
    (tmp_path / "Split-train").mkdir()
    long = example({"item": [b"a"] * 1000}).SerializeToString()
    with tf.io.TFRecordWriter(str(tmp_path / "Split-train" / "data.gz"), "GZIP") as writer:
        writer.write(long)
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--direct_num_workers=2"], tmp_dir=str(tmp_path), unique_id="1"
    )
    Executor(context).Do({"examples": [examples]}, {"transformed_examples": []}, {})
    assert asked == [({"transformed_examples": []}, 512)]


def test_no_example_is_gathered_by_a_flatten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flattened: list[str] = []
    expand = beam.Flatten.expand

    def noted(self: beam.Flatten, collections: Any) -> beam.pvalue.PCollection:
        flattened.append(self.label)
        return expand(self, collections)

    monkeypatch.setattr(beam.Flatten, "expand", noted)
    transformed(Executor, tmp_path / "ours")
    assert not {"FlattenAnalysisInputs", "FlattenPCollsFromPatterns"} & set(flattened)
    transformed(stock.Executor, tmp_path / "stock")
    assert {"FlattenAnalysisInputs", "FlattenPCollsFromPatterns"} <= set(flattened)
