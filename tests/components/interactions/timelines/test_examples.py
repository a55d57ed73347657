from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf

from components.interactions.timelines.examples import feature_lists, write_examples
from models.features.spec import FeatureConfig

FEATURES = {
    "title": FeatureConfig(kind="text"),
    "genres": FeatureConfig(kind="categorical", separator="|"),
    "country": FeatureConfig(kind="categorical"),
    "year": FeatureConfig(kind="numeric"),
}


ROWS = pa.table(
    {
        "title": ["Toy Story, 1", "", None],
        "genres": [" a | b||c ", "", "|"],
        "country": ["", "CH", None],
        "year": pa.array([1995, None, 0], pa.float32()),
    }
)


def test_missing_values_are_empty_lists_and_many_values_are_split():
    lists = feature_lists(ROWS, FEATURES, np.array([0, 1, 2]))
    assert lists["title"].to_pylist() == [[b"Toy Story, 1"], [], []]
    assert lists["genres"].to_pylist() == [[b"a", b"b", b"c"], [], []]
    assert lists["country"].to_pylist() == [[], [b"CH"], []]
    assert lists["year"].to_pylist() == [[1995], [], [0]]


def test_rows_are_taken_by_index_and_unknown_ones_are_empty():
    lists = feature_lists(ROWS, FEATURES, np.array([-1, 0, -1, 0]))
    assert lists["genres"].to_pylist() == [[], [b"a", b"b", b"c"]] * 2
    assert lists["year"].to_pylist() == [[], [1995]] * 2
    assert all(array.null_count == 0 for array in lists.values())
    without_file = feature_lists(None, FEATURES, np.array([-1, -1]))
    assert {name: array.to_pylist() for name, array in without_file.items()} == {
        name: [[], []] for name in FEATURES
    }


def test_tensorflow_reads_what_is_written(tmp_path: Path):
    path = str(tmp_path / "data.gz")
    batch = pa.record_batch(
        [
            pa.array([[b"a", "ü".encode()], []], pa.list_(pa.binary())),
            pa.array([[1], [2, 3]], pa.list_(pa.int64())),
        ],
        ["c", "t"],
    )
    write_examples(path, [batch, batch])
    # The reader checks lengths and checksums.
    records = [record.numpy() for record in tf.data.TFRecordDataset(path, "GZIP")]
    examples = [tf.train.Example.FromString(record) for record in records]
    assert len(examples) == 4
    assert list(examples[0].features.feature["c"].bytes_list.value) == [b"a", "ü".encode()]
    assert list(examples[3].features.feature["t"].int64_list.value) == [2, 3]
    assert examples[1].features.feature["c"].HasField("bytes_list")
    write_examples(path, [])
    assert list(tf.data.TFRecordDataset(path, "GZIP")) == []
