"""Examples that pass through Beam's own process, instead of being held there.

Stock Transform flattens the splits that it analyses, and its source of TFRecords flattens what it
reads. A flattened collection is no part of the stage that takes it: Beam's in-process runner first
gathers it in memory, and then copies it twice, in memory that grows with the data. Here one source
reads all splits, and nothing is flattened.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.beam import impl
from tfx.components.transform import executor
from tfx_bsl.tfxio import record_based_tfxio

_RECORDS_AT_ONCE = 1024


@contextlib.contextmanager
def splits_analysed_as_one() -> Iterator[None]:
    """Lets the stock executor of Transform read all splits that it analyses one by one."""
    stock, extract = executor.TransformProcessor, impl._ExtractInputForSavedModelImpl
    read, expand = record_based_tfxio.ReadTfRecord, extract.expand

    class Processor(stock):  # type: ignore[misc,valid-type]
        def _JoinUncachedDatasets(  # noqa: N802
            self,
            analyze_data_list: list[Any],
            new_analyze_data_dict: dict[Any, Any],
            schema: schema_pb2.Schema,
            analyze_input_columns: list[str],
        ) -> tuple[list[Any], dict[Any, Any]]:
            joint = analyze_data_list[0]
            joint._file_pattern = [dataset.file_pattern for dataset in analyze_data_list]
            joint._file_format = [dataset.file_format for dataset in analyze_data_list]
            joint.tfxio = self._CreateTFXIO(joint, schema).Project(analyze_input_columns)
            return [joint], {joint.dataset_key: joint}

    executor.TransformProcessor = Processor
    record_based_tfxio.ReadTfRecord = _read
    extract.expand = _extract
    try:
        yield
    finally:
        executor.TransformProcessor = stock
        record_based_tfxio.ReadTfRecord = read
        extract.expand = expand


@beam.ptransform_fn
@beam.typehints.with_input_types(beam.Pipeline)
@beam.typehints.with_output_types(bytes)
def _read(pipeline: beam.Pipeline, file_pattern: Sequence[str]) -> beam.pvalue.PCollection:
    return pipeline | beam.Create(file_pattern) | beam.FlatMap(_records).with_output_types(bytes)


def _records(file_pattern: str) -> Iterator[bytes]:
    files = sorted(tf.io.gfile.glob(file_pattern))
    records = tf.data.TFRecordDataset(files, compression_type="GZIP")
    # One at a time each would cost a tenth of a millisecond.
    for batch in records.batch(_RECORDS_AT_ONCE).as_numpy_iterator():
        yield from batch


def _extract(transform: Any, begin: beam.pvalue.PBegin) -> beam.pvalue.PCollection:
    (examples,) = transform._pcollection_dict.values()
    # Beam takes no transform that returns what it was given.
    return examples | beam.Map(lambda batch: batch)
