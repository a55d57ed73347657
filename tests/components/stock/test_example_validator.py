"""The gate over statistics that TFDV computed, with a schema of two environments."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

from components.errors import AnomaliesError
from components.stock.example_validator import Executor, without_empty_columns
from tests.builders import artifact

Column = Sequence[Sequence[Any]]

SCHEMA = """
default_environment: "TIMELINES"
default_environment: "CATALOGUE"
feature {
  name: "user" type: BYTES value_count { min: 1 max: 1 } presence { min_fraction: 1.0 }
  not_in_environment: "CATALOGUE"
}
feature {
  name: "age" type: FLOAT value_count { min: 0 max: 1 } presence { min_count: 1 }
  float_domain { min: 0 max: 120 } not_in_environment: "CATALOGUE"
}
feature {
  name: "country" type: BYTES value_count { min: 0 max: 1 } domain: "country"
  not_in_environment: "CATALOGUE"
}
feature { name: "item" type: BYTES value_count { min: 1 } presence { min_fraction: 1.0 } }
feature {
  name: "title" type: BYTES value_count { min: 1 max: 1 } presence { min_fraction: 1.0 }
  not_in_environment: "TIMELINES"
}
string_domain { name: "country" value: "CH" value: "JP" }
"""

# Every Example has every key: a timeline an empty list for each candidate feature and vice versa.
TIMELINES: dict[str, Column] = {
    "user": [[b"u1"], [b"u2"], [b"u3"]],
    "age": [[31.0], [], [64.0]],
    "country": [[b"CH"], [b"JP"], []],
    "item": [[b"a", b"b"], [b"c"], [b"a"]],
    "title": [[], [], []],
}
CATALOGUE: dict[str, Column] = {
    "user": [[], [], []],
    "age": [[], [], []],
    "country": [[], [], []],
    "item": [[b"a"], [b"b"], [b"c"]],
    "title": [[b"One"], [b"Two"], [b"Three"]],
}
_TYPES = {"age": pa.list_(pa.float32())}


def statistics_of(columns: dict[str, Column]) -> Any:
    arrays = {
        name: pa.array(values, _TYPES.get(name, pa.list_(pa.binary())))
        for name, values in columns.items()
    }
    return stats_impl.generate_statistics_in_memory(
        pa.RecordBatch.from_pydict(arrays), tfdv.StatsOptions()
    )


Gate = Callable[..., Artifact]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    def run(
        timelines: dict[str, Column] | None = None,
        catalogue: dict[str, Column] | None = None,
        schema: str = SCHEMA,
    ) -> Artifact:
        splits = {
            "train": {**TIMELINES, **(timelines or {})},
            "candidates": {**CATALOGUE, **(catalogue or {})},
        }
        statistics = artifact(standard_artifacts.ExampleStatistics, tmp_path / "statistics")
        statistics.split_names = artifact_utils.encode_split_names(list(splits))
        for split, columns in splits.items():
            io_utils.write_bytes_file(
                os.path.join(statistics.uri, f"Split-{split}", "FeatureStats.pb"),
                statistics_of(columns).SerializeToString(),
            )
        schema_artifact = artifact(standard_artifacts.Schema, tmp_path / "schema")
        io_utils.write_string_file(
            os.path.join(schema_artifact.uri, "schema.pbtxt"),
            text_format.MessageToString(text_format.Parse(schema, schema_pb2.Schema())),
        )
        anomalies = artifact(standard_artifacts.ExampleAnomalies, tmp_path / "anomalies")
        Executor().Do(
            {"statistics": [statistics], "schema": [schema_artifact]},
            {"anomalies": [anomalies]},
            {"exclude_splits": json.dumps([])},
        )
        return anomalies

    return run


def found(anomalies: Artifact, split: str) -> list[str]:
    content = Path(anomalies.uri, f"Split-{split}", "SchemaDiff.pb").read_bytes()
    return sorted(anomalies_pb2.Anomalies.FromString(content).anomaly_info)


def test_data_that_fits_the_schema_passes(gate: Gate):
    anomalies = gate()
    assert found(anomalies, "train") == found(anomalies, "candidates") == []


@pytest.mark.parametrize(
    ("role", "column", "values", "told"),
    [
        (
            "timelines",
            "country",
            [[b"CH"], [b"FR"], []],
            r"has 1 anomaly: train: .*FR \(~50%\)\. Fix",
        ),
        ("timelines", "age", [[31.0], [], [640.0]], "train: age: .*640>120"),
        ("timelines", "age", [[], [], []], "train: age: "),
        ("catalogue", "title", [[b"One"], [], [b"Three"]], "candidates: title: "),
        # A feature of the other environment, and one that the schema lacks.
        ("catalogue", "user", [[b"u1"], [], []], "candidates: user: "),
        ("timelines", "extra", [[b"x"], [b"y"], [b"z"]], "train: extra: New column"),
    ],
)
def test_an_anomaly_stops_the_run_and_is_written(
    gate: Gate, tmp_path: Path, role: str, column: str, values: Column, told: str
) -> None:
    with pytest.raises(AnomaliesError, match=told):
        gate(**{role: {column: values}})
    anomalies = artifact(standard_artifacts.ExampleAnomalies, tmp_path / "anomalies")
    splits = ("train", "candidates")
    assert [name for split in splits for name in found(anomalies, split)] == [column]


def test_a_schema_without_environments_applies_to_every_split(gate: Gate):
    plain = 'feature { name: "item" type: BYTES presence { min_fraction: 1.0 } }'
    with pytest.raises(AnomaliesError, match=r"8 anomalies: train: age: .*candidates: age: "):
        gate(schema=plain)


def test_the_message_shows_the_first_few_and_counts_the_rest(gate: Gate):
    extra = {f"extra {number}": [[b"x"], [b"y"], [b"z"]] for number in range(8)}
    with pytest.raises(AnomaliesError, match="8 anomalies") as raised:
        gate(extra)
    assert str(raised.value).count("train: extra") == 5
    assert "… and 3 more" in str(raised.value)


def test_empty_columns_are_dropped_from_a_copy():
    statistics = statistics_of(TIMELINES)
    kept = without_empty_columns(statistics).datasets[0].features
    assert [feature.path.step[0] for feature in kept] == ["user", "age", "country", "item"]
    assert len(statistics.datasets[0].features) == 5
