"""ServingValidator: send real queries to a real model server before a push."""

import os

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model
from tfx.utils import io_utils, path_utils

from components.serving_validator.config import ServingConfig
from components.serving_validator.sample_queries import Questions
from components.serving_validator.validate import validate_serving
from models.features.spec import FeatureSpec
from models.input.raw_examples import read_timelines, split_files
from models.settings import Settings

# The names that TFX's Pusher expects.
_BLESSED_FILE = "INFRA_BLESSED"
_NOT_BLESSED_FILE = "INFRA_NOT_BLESSED"
_BLESSED_PROPERTY = "blessed"


class ServingValidatorConfig(Settings):
    """The configuration of ServingValidator.

    Attributes:
        spec: Columns and features.
        serving: Served name, number of queries, timeouts.
        query_split: The split whose timelines are the queries.
    """

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

    TFX's InfraValidator needs a container engine or a cluster for its server, and checks only
    that there is an answer.

    ```python
    validator = ServingValidator(
        examples=example_gen.outputs["examples"],
        model=index_builder.outputs["retrieval_model"],
        config=ServingValidatorConfig(
            spec=spec, serving=ServingConfig(), query_split="eval"
        ).model_dump_json(),
    )
    ```

    Args:
        examples: Examples with the queries.
        model: The export of IndexBuilder.
        blessing: An InfraBlessing that Pusher understands. Its file `INFRA_NOT_BLESSED` lists
            the differences.
        config: A `ServingValidatorConfig`.
    """
    settings = ServingValidatorConfig.model_validate_json(config)
    files = split_files(examples.uri, settings.query_split)
    batches = read_timelines(files, settings.spec, settings.serving.validation_requests)
    problems = validate_serving(
        path_utils.serving_model_path(model.uri),
        Questions.from_timelines(next(batches), settings.spec),
        settings.serving,
    )
    fileio.makedirs(blessing.uri)
    name = _NOT_BLESSED_FILE if problems else _BLESSED_FILE
    io_utils.write_string_file(os.path.join(blessing.uri, name), "\n".join(problems))
    blessing.set_int_custom_property(_BLESSED_PROPERTY, 0 if problems else 1)
