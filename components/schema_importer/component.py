"""SchemaImporter: import the curated schema, with its content as part of the cache key."""

import hashlib
import os

from tfx.components.schema_gen.executor import DEFAULT_FILE_NAME
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Schema
from tfx.utils import io_utils

from components import files
from components.errors import OtherSchemaError


@component
def SchemaImporter(
    schema: OutputArtifact[Schema], schema_file: Parameter[str], schema_hash: Parameter[str]
) -> None:
    """Import a schema file, which must be the one that the pipeline was created with.

    TFX's ImportSchemaGen caches only by the path of the file, so a run would use the old schema
    after an edit.

    ```python
    schema_gen = SchemaImporter(schema_file=path, schema_hash=hash_of_schema(path))
    ```

    Args:
        schema: The imported schema.
        schema_file: Path of the schema at run time.
        schema_hash: `hash_of_schema` when the pipeline was created.

    Raises:
        OtherSchemaError: The file has another hash: it was edited, or the container image is older
            than the compiled pipeline.
    """
    found = hash_of_schema(schema_file)
    if found != schema_hash:
        raise OtherSchemaError(
            f"the schema must be the one that the pipeline was created with ({schema_hash[:16]}), "
            f"but {schema_file} is another schema ({found[:16]}): rebuild the image of a compiled "
            "pipeline, or compile again; on this machine, start a new run"
        )
    io_utils.SchemaReader().read(schema_file)  # raises an error unless it is a schema
    io_utils.copy_file(schema_file, os.path.join(schema.uri, DEFAULT_FILE_NAME))


def hash_of_schema(file: str) -> str:
    """Return the hash of a schema file."""
    return hashlib.sha256(files.read_bytes(file)).hexdigest()
