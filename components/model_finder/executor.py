"""Executor of ModelFinder."""

from collections.abc import Callable
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.blessed_records import BlessedRecord, find_record
from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut, why_seen
from components.timeline_example_gen.spec import LAST_SPAN_PROPERTY
from models.missing_model import write_no_model

RECORDS_KEY = "records"
CURRENT_MODEL_KEY = "current_model"
FITTED_EXAMPLES_KEY = "fitted_examples"
EXAMPLES_KEY = "examples"
MODEL_KEY = "model"


class Executor(base_executor.BaseExecutor):
    """Runs ModelFinder."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Copies the model that was found; where there is none, says so.

        Args:
            input_dict: `current_model`, `fitted_examples` and `examples`, each if given.
            output_dict: `model`; what was held out of it is a property.
            exec_properties: `records`, the folder of the records.

        Raises:
            RecordError: A record cannot be read, or its model is gone.
        """
        records = exec_properties[RECORDS_KEY]
        ingested = input_dict.get(EXAMPLES_KEY)
        found = find_record(
            records,
            except_model=_uri(input_dict, CURRENT_MODEL_KEY),
            except_examples=_uri(input_dict, FITTED_EXAMPLES_KEY),
            before_span=newest_span(ingested),
            why_not=_why_not(ingested),
        )
        model = artifact_utils.get_single_instance(output_dict[MODEL_KEY])
        destination = path_utils.serving_model_dir(model.uri)
        if found is None:
            write_no_model(destination, f"no model to be found in {records}")
        else:
            model.set_string_custom_property(HELD_OUT_PROPERTY, found.held_out)
            io_utils.copy_dir(path_utils.serving_model_path(found.model_uri), destination)


def newest_span(examples: list[types.Artifact] | None) -> int | None:
    """Returns the newest span of ingested Examples, None where they have no spans."""
    if not examples or not examples[0].has_custom_property(LAST_SPAN_PROPERTY):
        return None
    return int(examples[0].span)


def held_out_text(examples: list[types.Artifact] | None) -> str:
    """Returns what ingestion held out, empty where it did not say."""
    return examples[0].get_string_custom_property(HELD_OUT_PROPERTY) if examples else ""


def _why_not(examples: list[types.Artifact] | None) -> Callable[[BlessedRecord], str]:
    """Returns what tells whether a model may have seen what is held out of the Examples."""
    if not examples:
        return lambda record: ""
    now = HeldOut.parse(held_out_text(examples))
    return lambda record: why_seen(now, HeldOut.parse(record.held_out))


def _uri(input_dict: dict[str, list[types.Artifact]], key: str) -> str | None:
    artifacts = input_dict.get(key)
    return artifact_utils.get_single_uri(artifacts) if artifacts else None
