"""Unpacks the artifacts, asks the server, writes the blessing."""

import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.serving_validator.sample_queries import Questions
from components.serving_validator.spec import (
    BLESSING_KEY,
    CONFIG_KEY,
    EXAMPLES_KEY,
    MODEL_KEY,
    ServingValidatorConfig,
)
from components.serving_validator.validate import validate_serving
from models.input.raw_examples import read_timelines, split_files

_BLESSED_FILE = "INFRA_BLESSED"
_NOT_BLESSED_FILE = "INFRA_NOT_BLESSED"
_BLESSED_PROPERTY = "blessed"


class Executor(base_executor.BaseExecutor):
    """Runs ServingValidator."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Validates the retrieval model as served.

        Args:
            input_dict: `examples` (the split with the queries), `model`.
            output_dict: `blessing`.
            exec_properties: `serving_validator_config`, a `ServingValidatorConfig` as JSON.
        """
        config = ServingValidatorConfig.model_validate_json(exec_properties[CONFIG_KEY])
        examples_uri = artifact_utils.get_single_uri(input_dict[EXAMPLES_KEY])
        model_uri = artifact_utils.get_single_uri(input_dict[MODEL_KEY])
        blessing = artifact_utils.get_single_instance(output_dict[BLESSING_KEY])
        files = split_files(examples_uri, config.query_split)
        batches = read_timelines(files, config.spec, config.serving.validation_requests)
        problems = validate_serving(
            path_utils.serving_model_path(model_uri),
            Questions.from_timelines(next(batches), config.spec),
            config.serving,
        )
        fileio.makedirs(blessing.uri)
        name = _NOT_BLESSED_FILE if problems else _BLESSED_FILE
        io_utils.write_string_file(os.path.join(blessing.uri, name), "\n".join(problems))
        blessing.set_int_custom_property(_BLESSED_PROPERTY, 0 if problems else 1)
