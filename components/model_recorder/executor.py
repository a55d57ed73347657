"""Executor of ModelRecorder."""

from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from components.blessed_records import BlessedRecord, write_record
from components.model_finder.executor import held_out_text, newest_span

RECORDS_KEY = "records"
MODEL_KEY = "model"
FITTED_EXAMPLES_KEY = "fitted_examples"
EXAMPLES_KEY = "examples"
PUSHED_MODEL_KEY = "pushed_model"


class Executor(base_executor.BaseExecutor):
    """Runs ModelRecorder."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the record.

        Args:
            input_dict: `model`, `fitted_examples`, the `examples` before they were transformed, and
                `pushed_model`. What was pushed was blessed:
                the pusher refuses everything else.
            output_dict: Empty.
            exec_properties: `records`, the folder of the records.
        """
        pushed = artifact_utils.get_single_instance(input_dict[PUSHED_MODEL_KEY])
        write_record(
            exec_properties[RECORDS_KEY],
            BlessedRecord(
                model_uri=artifact_utils.get_single_uri(input_dict[MODEL_KEY]),
                examples_uri=artifact_utils.get_single_uri(input_dict[FITTED_EXAMPLES_KEY]),
                pushed_version=pushed.get_string_custom_property("pushed_version"),
                span=newest_span(input_dict[EXAMPLES_KEY]),
                held_out=held_out_text(input_dict[EXAMPLES_KEY]),
            ),
        )
