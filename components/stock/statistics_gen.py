"""TFX's StatisticsGen, without Beam if `runs_in_process`.

TFDV's generators accept one batch after the other. The statistics are the same, and memory does not
grow with the data.
"""

import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx import types
from tfx.components.statistics_gen import executor
from tfx.components.util import tfxio_utils
from tfx.types import artifact_utils, standard_component_specs
from tfx_bsl.tfxio.dataset_options import RecordBatchesOptions

from components import files
from components.artifacts import Artifacts
from components.stock.in_process import runs_in_process

_EXAMPLES_IN_A_BATCH = 1024
_OPTIONS_KEY = standard_component_specs.STATS_OPTIONS_JSON_KEY
# A parameter that only the cache uses.
CODE_HASH_KEY = "code_hash"


class Executor(executor.Executor):
    """Run StatisticsGen."""

    def Do(  # noqa: N802
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Write the statistics of each split.

        If a parameter other than `stats_options_json` is set, the stock executor does the work.
        """
        [examples] = input_dict[standard_component_specs.EXAMPLES_KEY]
        if not (
            _only_options_are_set(input_dict, exec_properties)
            and runs_in_process(self._beam_pipeline_args, examples.uri)
        ):
            super().Do(input_dict, output_dict, exec_properties)
            return
        options_json = exec_properties.get(_OPTIONS_KEY)
        [statistics] = output_dict[standard_component_specs.STATISTICS_KEY]
        statistics.split_names = examples.split_names
        statistics.span = examples.span
        for split in artifact_utils.decode_split_names(examples.split_names):
            options = tfdv.StatsOptions.from_json(options_json) if options_json else None
            computed = statistics_of(
                record_batches(examples, split), options or tfdv.StatsOptions()
            )
            folder = artifact_utils.get_split_uri([statistics], split)
            files.write_bytes(
                os.path.join(folder, executor.DEFAULT_FILE_NAME), computed.SerializeToString()
            )


def statistics_of(
    batches: Iterator[pa.RecordBatch], options: tfdv.StatsOptions
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Return the statistics that TFDV's `GenerateStatistics` computes, without Beam."""
    generators = stats_impl.get_generators(options, in_memory=True)
    partial = [generator.create_accumulator() for generator in generators]
    for batch in batches:
        partial = [
            generator.add_input(accumulator, batch)
            for generator, accumulator in zip(generators, partial, strict=True)
        ]
    return stats_impl.extract_statistics_output(partial, generators)


def record_batches(examples: types.Artifact, split: str) -> Iterator[pa.RecordBatch]:
    """Yield the Examples of a split in batches."""
    source = tfxio_utils.get_split_tfxio(
        examples=[examples], split=split, telemetry_descriptors=["StatisticsGen"]
    )
    options = RecordBatchesOptions(
        batch_size=_EXAMPLES_IN_A_BATCH, num_epochs=1, shuffle=False, drop_final_batch=False
    )
    batches: Iterator[pa.RecordBatch] = source.RecordBatches(options)
    return batches


def _only_options_are_set(input_dict: Artifacts, exec_properties: dict[str, Any]) -> bool:
    others = exec_properties.keys() - {_OPTIONS_KEY, CODE_HASH_KEY}
    return not input_dict.get(standard_component_specs.SCHEMA_KEY) and all(
        exec_properties[key] in (None, 0, "", "null", "[]", "{}") for key in others
    )
