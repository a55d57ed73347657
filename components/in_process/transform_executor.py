"""The stock Transform in batches of a size by the data, and without Beam once that is analysed.

Stock batches grow by how fast the last one was, so that moments, summed batch by batch, come out
otherwise in their last digits, and the same seed no longer gives the same model.

Analysis is the stock executor's. Applying its graph to each split costs Beam seconds before the
first Example, most of them to load the graph once more for each split; here it is loaded once, if
the data is small or Beam has no process but this one.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.components.transform import executor
from tfx.components.transform import executor_utils as stock_utils
from tfx.types import artifact_utils, standard_component_specs
from tfx_bsl.coders import example_coder
from tfx_bsl.tfxio import tensor_to_arrow

from components.in_process.batch_size import batch_size
from components.in_process.joint_analysis import splits_analysed_as_one
from components.in_process.one_process import has_one_process
from components.in_process.side_inputs import no_side_input_cache
from components.in_process.stored_size import is_small

# Of zlib: three times as fast as the usual 6.
_COMPRESSION_LEVEL = 1
_FILE_NAME = "transformed_examples-00000-of-00001.gz"


@contextlib.contextmanager
def _batches_of(size: int) -> Iterator[None]:
    # The stock executor makes its processor by the name in its module.
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


class Executor(executor.Executor):
    """Runs Transform; applies its graph in this process if all is small or Beam has no other."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Analyses the data and transforms it.

        Args:
            input_dict: `examples`, `schema`.
            output_dict: `transform_graph`, `transformed_examples`.
            exec_properties: As the stock component's.
        """
        examples = input_dict[standard_component_specs.EXAMPLES_KEY]
        splits = stock_utils.ResolveSplitsConfig(
            exec_properties.get(standard_component_specs.SPLITS_CONFIG_KEY), examples
        )
        batch = batch_size(
            artifact_utils.get_split_uri([artifact], split)
            for artifact in examples
            for split in sorted({*splits.analyze, *splits.transform})
        )
        here = has_one_process(self._beam_pipeline_args) or is_small(examples[0].uri)
        if len(examples) != 1 or not here:
            with _batches_of(batch):
                super().Do(input_dict, output_dict, exec_properties)
            return
        rest = dict(output_dict)
        transformed = artifact_utils.get_single_instance(
            rest.pop(standard_component_specs.TRANSFORMED_EXAMPLES_KEY)
        )
        with _batches_of(batch), splits_analysed_as_one(), no_side_input_cache():
            super().Do(input_dict, rest, exec_properties)
        graph = artifact_utils.get_single_uri(
            output_dict[standard_component_specs.TRANSFORM_GRAPH_KEY]
        )
        stock_utils.SetSplitNames(list(splits.transform), [transformed])
        apply = Applier(graph, batch)
        for split in splits.transform:
            source = artifact_utils.get_split_uri(examples, split)
            folder = artifact_utils.get_split_uri([transformed], split)
            tf.io.gfile.makedirs(folder)
            options = tf.io.TFRecordOptions("GZIP", compression_level=_COMPRESSION_LEVEL)
            with tf.io.TFRecordWriter(os.path.join(folder, _FILE_NAME), options) as writer:
                for serialized in apply(source):
                    writer.write(serialized)


class Applier:
    """Applies what Transform made of the analysis, loaded once.

    Args:
        transform_graph: The folder that Transform wrote.
        batch: How many Examples at once.
    """

    def __init__(self, transform_graph: str, batch: int) -> None:
        self._batch = batch
        output = tft.TFTransformOutput(transform_graph)
        self._parsing = output.raw_feature_spec()
        self._layer = output.transform_features_layer()
        self._encoder = example_coder.RecordBatchToExamplesEncoder(
            output.transformed_metadata.schema
        )
        self._converter: tensor_to_arrow.TensorsToRecordBatchConverter | None = None

    def __call__(self, folder: str) -> Iterator[bytes]:
        """Yields the transformed Examples of the GZIP TFRecords in `folder`, in their order."""
        files = sorted(tf.io.gfile.glob(os.path.join(folder, "*")))
        records = tf.data.TFRecordDataset(files, compression_type="GZIP")
        for serialized in records.batch(self._batch):
            transformed = self._layer(tf.io.parse_example(serialized, self._parsing))
            if self._converter is None:
                self._converter = tensor_to_arrow.TensorsToRecordBatchConverter(
                    {
                        name: tf.SparseTensorSpec([None, None], values.dtype)
                        for name, values in transformed.items()
                    }
                )
            yield from self._encoder.encode(self._converter.convert(transformed))
