"""SchemaImporter: the curated schema, whose edits the cache sees."""

import hashlib

from tfx.components.schema_gen.import_schema_gen import executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.dsl.io import fileio
from tfx.types import channel, component_spec, standard_artifacts, standard_component_specs

SCHEMA_FILE_KEY = standard_component_specs.SCHEMA_FILE_KEY
SCHEMA_KEY = standard_component_specs.SCHEMA_KEY
SCHEMA_HASH_KEY = "schema_hash"


class SchemaImporterSpec(component_spec.ComponentSpec):
    """What SchemaImporter takes and gives."""

    PARAMETERS = {
        SCHEMA_FILE_KEY: component_spec.ExecutionParameter(type=str),
        SCHEMA_HASH_KEY: component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}
    OUTPUTS = {SCHEMA_KEY: component_spec.ChannelParameter(type=standard_artifacts.Schema)}


class SchemaImporter(base_component.BaseComponent):
    """Brings a schema file into the pipeline.

    It runs the executor of TFX's ImportSchemaGen, whose cache knows the file by its path alone:
    after an edit, a run would go on with the old schema.

    ```python
    schema_gen = SchemaImporter("schema/movielens_100k/schema.pbtxt")
    ```

    Outputs:
        schema: The Schema.
    """

    SPEC_CLASS = SchemaImporterSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(self, schema_file: str, found_at: str | None = None) -> None:
        """Declares the import of a schema.

        Args:
            schema_file: The schema, which must exist here.
            found_at: Where the component finds it, if that is another place.
        """
        with fileio.open(schema_file, "rb") as file:
            schema_hash = hashlib.sha256(file.read()).hexdigest()
        super().__init__(
            SchemaImporterSpec(
                **{
                    SCHEMA_FILE_KEY: found_at or schema_file,
                    SCHEMA_HASH_KEY: schema_hash,
                    SCHEMA_KEY: channel.Channel(type=standard_artifacts.Schema),
                }
            )
        )
