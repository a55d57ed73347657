"""Transformed Examples without Beam, compared with those of the stock executor."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.transforms import util
from google.protobuf import json_format, text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.transform import executor as stock
from tfx.proto import example_gen_pb2, transform_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.stock import in_process
from components.stock.transform import Executor
from models.features.preprocessing import QUERY_VOCABULARY_KEY, SPEC_KEY
from tests.builders import (
    Row,
    artifact,
    examples_artifact,
    executor_context,
    feature_spec,
    read_numbers,
)

SPEC = feature_spec(
    query={"age": {"kind": "numeric"}},
    candidate={"genres": {"kind": "categorical", "separator": "|"}},
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


def transformed(
    executor: type[stock.Executor], folder: Path, train: Sequence[Row] = TRAIN
) -> dict[str, list[Any]]:
    examples = examples_artifact(folder / "examples", train=train, candidates=CANDIDATES)
    schema = artifact(standard_artifacts.Schema, folder / "schema")
    Path(schema.uri).mkdir()
    parsed = text_format.Parse(SCHEMA, schema_pb2.Schema())
    Path(schema.uri, "schema.pbtxt").write_text(text_format.MessageToString(parsed))
    graph = artifact(standard_artifacts.TransformGraph, folder / "graph")
    output = artifact(standard_artifacts.Examples, folder / "transformed")
    splits = transform_pb2.SplitsConfig(
        analyze=["train", "candidates"], transform=["train", "candidates"]
    )
    executor(executor_context(folder)).Do(
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
    return {
        split: read_numbers(Path(output.uri, f"Split-{split}")) for split in ("train", "candidates")
    }


@pytest.mark.slow
def test_it_transforms_as_the_stock_executor_does(tmp_path: Path):
    expected = transformed(stock.Executor, tmp_path / "stock")
    assert [len(rows) for rows in expected.values()] == [len(TRAIN), len(CANDIDATES)]
    assert transformed(Executor, tmp_path / "small") == expected


@pytest.mark.slow
def test_a_slow_machine_has_equal_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_large_data_goes_to_the_stock_executor_in_batches_of_its_size(
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
    examples = examples_artifact(tmp_path, train=[{"item": [b"a"] * 1000}])
    context = executor_context(tmp_path, "--direct_num_workers=2")
    Executor(context).Do({"examples": [examples]}, {"transformed_examples": []}, {})
    assert asked == [({"transformed_examples": []}, 512)]


def test_no_flatten_gathers_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
