"""Decide whether StatisticsGen and Transform use Beam, and how large the batches of Transform are.

Beam takes seconds to set up its stages, and then twice as long per Example. Both components work
without Beam if the data is small, or if Beam would only use this process.
"""

import os
from collections.abc import Iterable, Sequence

import pyarrow as pa
import tensorflow as tf
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components import files

# Compressed size of about five million events.
SMALL_BYTES = 32 * 2**20
# Stock batches have at most 1,000 Examples. Larger batches are faster, because Beam merges the
# counts of batches slowly.
_MAX_EXAMPLES = 4096
# Number of values of the longest feature, which is the events. Moments depend on the batches, so
# the size is the same for all timelines of up to 128 events on average.
_MAX_VALUES = 128 * _MAX_EXAMPLES
# Number of Examples that are read per split, spread over its files.
_SAMPLE = 4096
_EXAMPLES_PER_DECODING = 512


def runs_in_process(beam_pipeline_args: Sequence[str], folder: str) -> bool:
    """Return whether to process the data in a folder without Beam."""
    options = PipelineOptions(list(beam_pipeline_args))
    runner = options.view_as(StandardOptions).runner or "DirectRunner"
    has_one_process = (
        runner == "DirectRunner" and options.view_as(DirectOptions).direct_num_workers == 1
    )
    return has_one_process or _stored_bytes(folder) <= SMALL_BYTES


def batch_size(folders: Iterable[str]) -> int:
    """Return the number of Examples per batch of Transform: a power of two, at most 4,096.

    It is so small that the batches of every folder have at most 524,288 events on average. Since it
    only depends on the first Examples of each file, it is the same on every machine.
    """
    longest = max(map(_mean_values, folders), default=0.0)
    size = _MAX_EXAMPLES
    while size > 1 and size * longest > _MAX_VALUES:
        size //= 2
    return size


def _mean_values(folder: str) -> float:
    """Return the mean number of values of an Example's longest feature."""
    paths = files.glob(os.path.join(folder, "*"))
    if not paths:
        return 0.0
    per_file = -(-_SAMPLE // len(paths))
    decoder = ExamplesToRecordBatchDecoder()
    num_examples = 0
    values: dict[str, int] = {}
    for path in paths:
        records = tf.data.TFRecordDataset(path, compression_type="GZIP").take(per_file)
        for batch in records.batch(_EXAMPLES_PER_DECODING).as_numpy_iterator():
            decoded = decoder.DecodeBatch(batch.tolist())
            num_examples += decoded.num_rows
            for name, column in zip(decoded.schema.names, decoded.columns, strict=True):
                if not pa.types.is_null(column.type):
                    values[name] = values.get(name, 0) + len(column.flatten())
    return max(values.values(), default=0) / max(num_examples, 1)


def _stored_bytes(folder: str) -> int:
    return sum(
        int(tf.io.gfile.stat(os.path.join(parent, name)).length)
        for parent, _, names in tf.io.gfile.walk(folder)
        for name in names
    )
