"""ServingValidator: send real queries to a real model server before a push."""

import json
import os

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model
from tfx.utils import path_utils

from components import files
from components.serving_validator.config import ServingConfig
from components.serving_validator.validate import validate_serving
from models.features.spec import FeatureSpec
from models.input.raw_examples import read_timelines, split_files
from models.settings import Settings

# The names that TFX's Pusher expects.
_BLESSED_FILE = "INFRA_BLESSED"
_NOT_BLESSED_FILE = "INFRA_NOT_BLESSED"
_BLESSED_PROPERTY = "blessed"
LATENCIES_FILE = "latencies.json"


class ServingValidatorConfig(Settings):
    """The configuration of ServingValidator; `query_split` provides the queries."""

    spec: FeatureSpec
    serving: ServingConfig
    query_split: str


@component
def ServingValidator(
    examples: InputArtifact[Examples],
    model: InputArtifact[Model],
    blessing: OutputArtifact[InfraBlessing],
    config: Parameter[str],
) -> None:
    """Start the model server on an export and compare its answers with the model's own.

    TFX's InfraValidator needs a container engine or a cluster to run a server, and only checks
    that the server answers.

    ```python
    validator = ServingValidator(
        examples=example_gen.outputs["examples"],
        model=index_builder.outputs["retrieval_model"],
        config=ServingValidatorConfig(...).model_dump_json(),
    )
    ```

    Outputs:
        blessing: The verdict, for Pusher; its file `INFRA_NOT_BLESSED` lists the problems, and
            `latencies.json` has the times of the queries alone in milliseconds.
    """
    settings = ServingValidatorConfig.model_validate_json(config)
    query_files = split_files(examples.uri, settings.query_split)
    number = settings.serving.validation_requests
    queries = next(read_timelines(query_files, settings.spec, number)).inputs
    path = path_utils.serving_model_path(model.uri)
    check = validate_serving(path, queries, settings.spec, settings.serving)
    name = _NOT_BLESSED_FILE if check.problems else _BLESSED_FILE
    files.write_text(os.path.join(blessing.uri, name), "\n".join(check.problems))
    files.write_text(os.path.join(blessing.uri, LATENCIES_FILE), json.dumps(check.latencies_ms))
    blessing.set_int_custom_property(_BLESSED_PROPERTY, 0 if check.problems else 1)
