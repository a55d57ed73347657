"""SchemaImporter: the curated schema, whose edits the cache sees."""

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, standard_artifacts

from components.schema_importer.executor import Executor, schema_hash
from components.schema_importer.spec import (
    SCHEMA_FILE_KEY,
    SCHEMA_HASH_KEY,
    SCHEMA_KEY,
    SchemaImporterSpec,
)


class SchemaImporter(base_component.BaseComponent):
    """Brings a schema file into the pipeline.

    It runs the executor of TFX's ImportSchemaGen, whose cache knows the file by its path alone:
    after an edit, a run would go on with the old schema. A file that is not the one that was
    declared is refused: that of an image which is older than the compiled pipeline.

    ```python
    schema_gen = SchemaImporter("schema/movielens_100k/schema.pbtxt")
    ```

    Outputs:
        schema: The Schema.
    """

    SPEC_CLASS = SchemaImporterSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, schema_file: str, found_at: str | None = None) -> None:
        """Declares the import of a schema.

        Args:
            schema_file: The schema, which must exist here.
            found_at: Where the component finds it, if that is another place.
        """
        super().__init__(
            SchemaImporterSpec(
                **{
                    SCHEMA_FILE_KEY: found_at or schema_file,
                    SCHEMA_HASH_KEY: schema_hash(schema_file),
                    SCHEMA_KEY: channel.Channel(type=standard_artifacts.Schema),
                }
            )
        )
