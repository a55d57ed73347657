"""Executor of CatalogueExampleGen: unpacks, calls, declares what was written."""

from typing import Any

from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils

from components.catalogue_example_gen.ingest import ingest_catalogue
from components.catalogue_example_gen.spec import (
    CONFIG_KEY,
    EXAMPLES_KEY,
    FITTED_REPORT_KEY,
    REJECTED_KEY,
    REPORT_KEY,
)
from components.interactions.config import IngestConfig


class Executor(base_beam_executor.BaseBeamExecutor):
    """Runs the ingestion of a catalogue in a component."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Reads the catalogue's files and writes Examples.

        Args:
            input_dict: `fitted_report`, of the ingestion that the model was fitted on.
            output_dict:
                - examples: one `Examples` artifact with the split `candidates`.
                - rejected: one `RejectedRows` artifact.
                - report: one `IngestReport` artifact.
            exec_properties:
                - config: JSON of an `IngestConfig`.
                - input_fingerprint: not read; it makes the cache see changed files.

        Raises:
            IngestError: The input cannot become Examples.
        """
        config = IngestConfig.model_validate_json(exec_properties[CONFIG_KEY])
        examples = artifact_utils.get_single_instance(output_dict[EXAMPLES_KEY])
        ingest_catalogue(
            config,
            artifact_utils.get_single_uri(input_dict[FITTED_REPORT_KEY]),
            examples.uri,
            artifact_utils.get_single_uri(output_dict[REJECTED_KEY]),
            artifact_utils.get_single_uri(output_dict[REPORT_KEY]),
            self._make_beam_pipeline,
        )
        examples.split_names = artifact_utils.encode_split_names(["candidates"])
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(examples, "tfrecords_gzip")
