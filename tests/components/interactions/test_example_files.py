from pathlib import Path

import pyarrow as pa
import tensorflow as tf

from components.interactions.timelines.examples import ExampleFile


def test_tensorflow_reads_what_is_written(tmp_path: Path):
    path = str(tmp_path / "data.gz")
    batch = pa.record_batch(
        [
            pa.array([[b"a", "ü".encode()], []], pa.list_(pa.binary())),
            pa.array([[1], [2, 3]], pa.list_(pa.int64())),
        ],
        ["c", "t"],
    )
    with ExampleFile(path) as file:
        file.write(batch)
        file.write(batch)
    # The reader checks lengths and checksums.
    records = [record.numpy() for record in tf.data.TFRecordDataset(path, "GZIP")]
    examples = [tf.train.Example.FromString(record) for record in records]
    assert len(examples) == 4
    assert list(examples[0].features.feature["c"].bytes_list.value) == [b"a", "ü".encode()]
    assert list(examples[3].features.feature["t"].int64_list.value) == [2, 3]
    assert examples[1].features.feature["c"].HasField("bytes_list")


def test_a_file_may_hold_nothing(tmp_path: Path):
    path = str(tmp_path / "data.gz")
    with ExampleFile(path):
        pass
    assert list(tf.data.TFRecordDataset(path, "GZIP")) == []
