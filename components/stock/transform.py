"""TFX's Transform, with a batch size that only depends on the data, and partly without Beam.

The stock executor analyses the data. To transform the splits, Beam would load the graph again for
each one, which takes seconds. If `runs_in_process`, the graph is loaded once, and the splits are
transformed without Beam.
"""

import os
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.transform import executor
from tfx.components.transform import executor_utils as stock_utils
from tfx.types import artifact_utils, standard_component_specs
from tfx_bsl.coders import example_coder
from tfx_bsl.tfxio import tensor_to_arrow

from components import files
from components.artifacts import Artifacts
from components.patches.transform import (
    no_side_input_cache,
    splits_analysed_as_one,
    transform_batches_of,
)
from components.stock.in_process import batch_size, runs_in_process

# Level 1 of zlib is three times as fast as its default, 6.
_COMPRESSION_LEVEL = 1
_FILE_NAME = "transformed_examples-00000-of-00001.gz"


class Executor(executor.Executor):
    """Run Transform."""

    def Do(  # noqa: N802
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Analyse the data and transform it."""
        examples = input_dict[standard_component_specs.EXAMPLES_KEY]
        splits = stock_utils.ResolveSplitsConfig(
            exec_properties.get(standard_component_specs.SPLITS_CONFIG_KEY), examples
        )
        batch = batch_size(
            artifact_utils.get_split_uri(examples, split)
            for split in sorted({*splits.analyze, *splits.transform})
        )
        uri = artifact_utils.get_single_uri(examples)
        if not runs_in_process(self._beam_pipeline_args, uri):
            with transform_batches_of(batch):
                super().Do(input_dict, output_dict, exec_properties)
            return
        rest = dict(output_dict)
        [transformed] = rest.pop(standard_component_specs.TRANSFORMED_EXAMPLES_KEY)
        with transform_batches_of(batch), splits_analysed_as_one(), no_side_input_cache():
            super().Do(input_dict, rest, exec_properties)
        graph = artifact_utils.get_single_uri(
            output_dict[standard_component_specs.TRANSFORM_GRAPH_KEY]
        )
        stock_utils.SetSplitNames(list(splits.transform), [transformed])
        output = tft.TFTransformOutput(graph)
        parsing, layer = output.raw_feature_spec(), output.transform_features_layer()
        encoder = example_coder.RecordBatchToExamplesEncoder(output.transformed_metadata.schema)
        features = output.transformed_feature_spec().items()
        converter = tensor_to_arrow.TensorsToRecordBatchConverter(
            {name: tf.SparseTensorSpec([None, None], feature.dtype) for name, feature in features}
        )
        for split in splits.transform:
            source = artifact_utils.get_split_uri(examples, split)
            folder = artifact_utils.get_split_uri([transformed], split)
            files.make_folder(folder)
            options = tf.io.TFRecordOptions("GZIP", compression_level=_COMPRESSION_LEVEL)
            with tf.io.TFRecordWriter(os.path.join(folder, _FILE_NAME), options) as writer:
                for serialized in _records(source).batch(batch):
                    tensors = layer(tf.io.parse_example(serialized, parsing))
                    for example in encoder.encode(converter.convert(tensors)):
                        writer.write(example)


def _records(folder: str) -> tf.data.Dataset:
    paths = files.glob(os.path.join(folder, "*"))
    return tf.data.TFRecordDataset(paths, compression_type="GZIP")
