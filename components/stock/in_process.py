"""Decide how StatisticsGen and Transform do their work: in this process or in Beam, and in batches.

To set up Beam's stages costs seconds before the first Example, and each Example then takes twice as
long. So both work without Beam if all data is small, or if Beam has no process but this one.
"""

import os
from collections.abc import Iterable, Sequence

import pyarrow as pa
import tensorflow as tf
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

# As stored, compressed: about five million events.
SMALL_BYTES = 32 * 2**20
# Stock batches stop growing at 1,000. Values are counted within a batch, and then by Beam, which
# takes far longer, from batch to batch.
_MAX_EXAMPLES = 4096
# Values of the longest feature, which is the events. Moments depend on the batches, so timelines
# of up to 128 events on average are batched alike.
_MAX_VALUES = 128 * _MAX_EXAMPLES
# Examples to look at in each split, spread over its files.
_SAMPLE = 4096
_DECODED_AT_ONCE = 512


def runs_in_process(beam_pipeline_args: Sequence[str], folder: str) -> bool:
    """Return whether to work without Beam.

    Args:
        beam_pipeline_args: Arguments of the Beam pipelines.
        folder: The data.
    """
    options = PipelineOptions(list(beam_pipeline_args))
    runner = options.view_as(StandardOptions).runner or "DirectRunner"
    has_one_process = (
        runner == "DirectRunner" and options.view_as(DirectOptions).direct_num_workers == 1
    )
    return has_one_process or _stored_bytes(folder) <= SMALL_BYTES


def batch_size(folders: Iterable[str]) -> int:
    """Return how many Examples Transform takes at once: a power of two, at most 4,096.

    A batch then has at most 524,288 events on average. The first Examples of each file decide, so
    the same files have the same batch size on every machine.

    Args:
        folders: Folders of splits, with GZIP TFRecords of Examples. The longest Examples decide.
    """
    longest = max(map(_mean_values, folders), default=0.0)
    size = _MAX_EXAMPLES
    while size > 1 and size * longest > _MAX_VALUES:
        size //= 2
    return size


def _mean_values(folder: str) -> float:
    """Return the mean number of values of an Example's longest feature."""
    files = sorted(tf.io.gfile.glob(os.path.join(folder, "*")))
    if not files:
        return 0.0
    per_file = -(-_SAMPLE // len(files))
    decoder = ExamplesToRecordBatchDecoder()
    num_examples = 0
    values: dict[str, int] = {}
    for file in files:
        records = tf.data.TFRecordDataset(file, compression_type="GZIP").take(per_file)
        for batch in records.batch(_DECODED_AT_ONCE).as_numpy_iterator():
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
