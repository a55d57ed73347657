"""The curated schema is validated with TFDV, as the anomaly gate does."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.config.file import load
from pipeline.schema_inference.config_schema import compare_with_curated_schema, read_schema

ROOT = Path(__file__).parents[2]
SCHEMA_FILE = ROOT / "schema/movielens_100k/schema.pbtxt"
DATA = ROOT / "data/movielens_100k"

Columns = dict[str, list[list[Any]]]

needs_data = pytest.mark.skipif(
    not (DATA / "interactions.csv").is_file(),
    reason="data/movielens_100k is absent; `two-tower data movielens-100k` makes it",
)

TYPES = {
    "user_id": pa.large_binary(), "gender": pa.large_binary(),
    "age": pa.float32(), "movie_id": pa.large_binary(), "timestamp": pa.int64(),
    "rating": pa.float32(), "is_target": pa.int64(), "title": pa.large_binary(),
    "genres": pa.large_binary(), "year": pa.float32(),
}  # fmt: skip


def _timelines() -> Columns:
    """Two users with two and one ratings."""
    return {
        "user_id": [[b"1"], [b"2"]], "gender": [[b"F"], [b"M"]],
        "age": [[24.0], [53.0]],
        "movie_id": [[b"10", b"11"], [b"10"]], "timestamp": [[881250949, 881250950], [891717742]],
        "rating": [[1.0, 5.0], [3.0]], "is_target": [[0, 1], [0]],
        "title": [[], []], "genres": [[], []], "year": [[], []],
    }  # fmt: skip


def _catalogue() -> Columns:
    """Two films, one without a year."""
    columns: Columns = {name: [[], []] for name in TYPES}
    return columns | {
        "movie_id": [[b"10"], [b"11"]], "title": [[b"Alien"], [b"unknown"]],
        "genres": [[b"Horror", b"Sci-Fi"], [b"unknown"]], "year": [[1979.0], []],
    }  # fmt: skip


def _anomalies(columns: Columns, environment: str, types: dict[str, Any] = TYPES) -> dict[str, str]:
    arrays = [pa.array(values, pa.large_list(types[name])) for name, values in columns.items()]
    return _anomalies_of(pa.RecordBatch.from_arrays(arrays, list(columns)), environment)


def _anomalies_of(batch: pa.RecordBatch, environment: str) -> dict[str, str]:
    import tensorflow_data_validation as tfdv
    from tensorflow_data_validation.statistics import stats_impl

    from components.stock.example_validator import without_empty_columns

    found = tfdv.validate_statistics(
        without_empty_columns(stats_impl.generate_statistics_in_memory(batch)),
        read_schema(SCHEMA_FILE),
        environment=environment,
    )
    return {name: info.description for name, info in found.anomaly_info.items()}


def test_describes_every_feature_of_the_configuration() -> None:
    schema = read_schema(SCHEMA_FILE)
    assert {feature.name for feature in schema.feature} == set(TYPES)
    assert set(schema.default_environment) == {"TIMELINES", "CATALOGUE"}
    assert text_format.Parse(SCHEMA_FILE.read_text(), schema_pb2.Schema()) == schema


@pytest.mark.slow
def test_transform_reads_every_feature_as_sparse() -> None:
    import tensorflow as tf
    from tensorflow_transform.tf_metadata import schema_utils

    parsed = schema_utils.schema_as_feature_spec(read_schema(SCHEMA_FILE)).feature_spec
    assert set(parsed) == set(TYPES)
    assert all(isinstance(feature, tf.io.VarLenFeature) for feature in parsed.values())


@pytest.mark.slow
def test_accepts_timelines_and_catalogue() -> None:
    assert _anomalies(_timelines(), "TIMELINES") == {}
    assert _anomalies(_catalogue(), "CATALOGUE") == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "feature", "values", "message"),
    [
        ("TIMELINES", "gender", [[b"X"], [b"M"]], "values missing from the schema: X"),
        ("TIMELINES", "gender", [[], [b"M"]], "fewer values than expected"),
        ("TIMELINES", "gender", [[b"F", b"M"], [b"M"]], "more values than expected"),
        ("TIMELINES", "movie_id", [[], []], "completely missing"),
        ("TIMELINES", "rating", [[1.0, 6.0], [3.0]], "high value: 6>5"),
        ("TIMELINES", "rating", [[0.5, 5.0], [3.0]], "low values: 0.5<1"),
        ("TIMELINES", "rating", [[float("nan"), 5.0], [3.0]], "NaN"),
        ("TIMELINES", "is_target", [[0, 2], [0]], "large value: 2"),
        ("TIMELINES", "age", [[-1.0], [53.0]], "low values: -1<0"),
        ("TIMELINES", "title", [[b"Alien"], []], "not in the environment TIMELINES"),
        ("CATALOGUE", "title", [[], [b"unknown"]], "fewer values than expected"),
        ("CATALOGUE", "genres", [[], [b"unknown"]], "fewer values than expected"),
        ("CATALOGUE", "movie_id", [[], [b"11"]], "fewer values than expected"),
        ("CATALOGUE", "gender", [[b"F"], [b"M"]], "not in the environment CATALOGUE"),
    ],
)
def test_finds_what_is_wrong(
    environment: str, feature: str, values: list[list[Any]], message: str
) -> None:
    columns = _timelines() if environment == "TIMELINES" else _catalogue()
    found = _anomalies(columns | {feature: values}, environment)
    assert set(found) == {feature}
    assert message in found[feature]


@pytest.mark.slow
def test_finds_a_wrong_type_and_a_missing_column() -> None:
    columns = _timelines() | {"user_id": [[1], [2]]}
    del columns["age"]
    found = _anomalies(columns, "TIMELINES", TYPES | {"user_id": pa.int64()})
    assert "Expected data of type" in found["user_id"]
    assert "missing" in found["age"]


@needs_data
def test_the_data_has_no_difference() -> None:
    assert compare_with_curated_schema(load("movielens_100k")).differences == []


@needs_data
@pytest.mark.slow
def test_the_gate_accepts_the_examples_of_the_data(tmp_path: Path) -> None:
    import apache_beam as beam
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    from components.interactions.config import IngestConfig
    from components.interactions.ingest import OutputFolders, ingest

    config = load("movielens_100k")
    paths = {name: config.resolve(getattr(config.data, name)) for name in (
        "interactions", "queries", "candidates")}  # fmt: skip
    data = config.data.model_copy(update=paths)
    folders = [tmp_path / name for name in ("examples", "rejected", "report")]
    for folder in folders:
        folder.mkdir()
    ingest(
        IngestConfig(data=data, split=config.split, spec=config.spec),
        OutputFolders(*map(str, folders)),
        beam.Pipeline,
    )
    for split in config.split.split_names:
        files = [str(file) for file in (tmp_path / "examples" / f"Split-{split}").iterdir()]
        records = [record.numpy() for record in tf.data.TFRecordDataset(files, "GZIP")]
        batch = ExamplesToRecordBatchDecoder().DecodeBatch(records)
        assert {field.name: field.type.value_type for field in batch.schema} == TYPES
        environment = "CATALOGUE" if split == "candidates" else "TIMELINES"
        assert _anomalies_of(batch, environment) == {}
