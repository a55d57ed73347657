"""SchemaImporter: import the curated schema, in such a way that the cache notices edits."""

import hashlib
import os

from tfx.components.schema_gen.executor import DEFAULT_FILE_NAME
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types.standard_artifacts import Schema
from tfx.utils import io_utils


class OtherSchemaError(Exception):
    """The file does not have the given hash. Running again does not help."""


@component
def SchemaImporter(
    schema: OutputArtifact[Schema],
    schema_file: Parameter[str],
    schema_hash: Parameter[str],
) -> None:
    """Import a schema file, unless it is another one than the pipeline was created with.

    TFX's ImportSchemaGen caches by the file's path alone: after an edit, a run would continue
    with the old schema.

    ```python
    schema_gen = SchemaImporter(schema_file=path, schema_hash=hash_of_schema(path))
    ```

    Args:
        schema: The imported schema.
        schema_file: Path where this component finds the schema.
        schema_hash: Hash of the file's content.

    Raises:
        OtherSchemaError: The content has another hash, because the container image is older than
            the compiled pipeline, or because the file was edited since.
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
    """Return the hash of a schema's text."""
    with fileio.open(file, "rb") as opened:
        return hashlib.sha256(opened.read()).hexdigest()
