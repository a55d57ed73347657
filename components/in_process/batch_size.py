"""How many Examples Transform takes at once: fewer where they are long, by the data alone."""

import os
from collections.abc import Iterable

import pyarrow as pa
import tensorflow as tf
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

# Stock batches stop growing at 1,000. Values are counted within a batch, and by Beam, which takes
# far longer, from batch to batch.
_MOST_EXAMPLES = 4096
# Of the longest feature, which is the events: moments depend on the batches, so that timelines of
# ordinary length, up to 128 events on average, have the same ones as short ones.
_VALUES = 128 * _MOST_EXAMPLES
# Of each split, spread over its files.
_LOOKED_AT = 4096
_DECODED_AT_ONCE = 512


def batch_size(folders: Iterable[str]) -> int:
    """Returns a power of two, at most 4,096, so that a batch has some 524,288 events on average.

    The first Examples of each file tell how long they are, so that the same files give the same
    size, whatever the machine.

    Args:
        folders: Of splits, with GZIP TFRecords of Examples. The longest Examples decide.
    """
    longest = max(map(_mean_values, folders), default=0.0)
    size = _MOST_EXAMPLES
    while size > 1 and size * longest > _VALUES:
        size //= 2
    return size


def _mean_values(folder: str) -> float:
    """Returns how many values of its longest feature an Example has on average."""
    files = sorted(tf.io.gfile.glob(os.path.join(folder, "*")))
    if not files:
        return 0.0
    a_file = -(-_LOOKED_AT // len(files))
    decoder = ExamplesToRecordBatchDecoder()
    num_examples = 0
    values: dict[str, int] = {}
    for file in files:
        records = tf.data.TFRecordDataset(file, compression_type="GZIP").take(a_file)
        for batch in records.batch(_DECODED_AT_ONCE).as_numpy_iterator():
            decoded = decoder.DecodeBatch(batch.tolist())
            num_examples += decoded.num_rows
            for name, column in zip(decoded.schema.names, decoded.columns, strict=True):
                if not pa.types.is_null(column.type):
                    values[name] = values.get(name, 0) + len(column.flatten())
    return max(values.values(), default=0) / max(num_examples, 1)
