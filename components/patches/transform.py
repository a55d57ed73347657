"""Patches of TFX, Beam and TensorFlow Transform, each for the duration of one `with` block.

They were measured with TFX 1.16, Beam 2.65 and Transform 1.16 on one process of Beam's
DirectRunner. Check them again when one of these versions changes.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.beam import impl
from tfx.components.transform import executor
from tfx_bsl.tfxio import record_based_tfxio

from components import files

_RECORDS_PER_BATCH = 1024


@contextlib.contextmanager
def transform_batches_of(size: int) -> Iterator[None]:
    """Make Transform analyse in batches of a fixed size.

    Beam adapts the size of batches to their duration. Moments are summed batch by batch, so their
    last digits would differ from run to run, and the same seed would not give the same model.

    Gain: equal data and seeds give equal models. Upstream has no issue about it.

    Remove when: Transform has an option for the batch size of Examples, as of raw records.
    """
    stock = executor.TransformProcessor

    class Processor(stock):  # type: ignore[misc,valid-type]
        def _GetDesiredBatchSize(  # noqa: N802
            self, data_format: int, schema: schema_pb2.Schema
        ) -> int | None:
            desired: int | None = super()._GetDesiredBatchSize(data_format, schema)
            return desired or size

    executor.TransformProcessor = Processor
    try:
        yield
    finally:
        executor.TransformProcessor = stock


@contextlib.contextmanager
def splits_analysed_as_one() -> Iterator[None]:
    """Make Transform read all splits that it analyses from one source, without a Flatten.

    Beam's in-process runner collects a flattened collection in memory before the next stage, and
    then copies it twice. Stock Transform flattens the splits (`FlattenAnalysisInputs` in
    `tensorflow_transform.beam.impl`) and the files (`FlattenPCollsFromPatterns` in
    `tfx_bsl.tfxio.record_based_tfxio`), so its memory grows with the data.

    Gain: 1,060 instead of 1,699 MB for ten million events (`benchmarks/growth.py --full`).

    Remove when: Beam's in-process runner fuses Flatten into the stage that consumes it; see
    https://github.com/tensorflow/transform/issues/143.
    """
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


@contextlib.contextmanager
def no_side_input_cache() -> Iterator[None]:
    """Make Beam's in-process worker read side inputs each time instead of caching them.

    Before Beam caches a side input, it adds up the sizes of its objects in Python. Transform gets
    each vocabulary as a side input that is read only once.

    Gain: minutes for a vocabulary of half a million values.

    Remove when: https://github.com/apache/beam/issues/30360 is fixed, or the in-process worker
    respects the option `--max_cache_memory_usage_mb`.
    """
    before = worker_handlers.STATE_CACHE_SIZE_MB
    worker_handlers.STATE_CACHE_SIZE_MB = 0
    try:
        yield
    finally:
        worker_handlers.STATE_CACHE_SIZE_MB = before


@beam.ptransform_fn
@beam.typehints.with_input_types(beam.Pipeline)
@beam.typehints.with_output_types(bytes)
def _read(pipeline: beam.Pipeline, file_pattern: Sequence[str]) -> beam.pvalue.PCollection:
    return pipeline | beam.Create(file_pattern) | beam.FlatMap(_records).with_output_types(bytes)


def _records(file_pattern: str) -> Iterator[bytes]:
    records = tf.data.TFRecordDataset(files.glob(file_pattern), compression_type="GZIP")
    # Without batches, each record would take 0.1 ms.
    for batch in records.batch(_RECORDS_PER_BATCH).as_numpy_iterator():
        yield from batch


def _extract(transform: Any, begin: beam.pvalue.PBegin) -> beam.pvalue.PCollection:
    (examples,) = transform._pcollection_dict.values()
    # Beam does not accept a transform that returns its input.
    return examples | beam.Map(lambda batch: batch)
