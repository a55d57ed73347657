"""Imports the schema that the pipeline was made for, and no other."""

import hashlib
from typing import Any

from tfx import types
from tfx.components.schema_gen.import_schema_gen import executor
from tfx.dsl.io import fileio

from components.schema_importer.spec import SCHEMA_FILE_KEY, SCHEMA_HASH_KEY


class OtherSchemaError(Exception):
    """The file is not the one whose hash was given; running again does not help."""


class Executor(executor.Executor):
    """TFX's executor, once the file is what was hashed."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Copies the schema.

        Args:
            input_dict: Nothing.
            output_dict: `schema`.
            exec_properties: `schema_file`, and `schema_hash` of its content.

        Raises:
            OtherSchemaError: The content has another hash.
        """
        file = exec_properties[SCHEMA_FILE_KEY]
        found, expected = schema_hash(file), exec_properties[SCHEMA_HASH_KEY]
        if found != expected:
            raise OtherSchemaError(
                f"{file} is another schema ({found[:16]}) than the pipeline was made with "
                f"({expected[:16]}): in a compiled pipeline, build the image anew or compile with "
                "its schema; else it was edited meanwhile, and a new run takes it"
            )
        super().Do(input_dict, output_dict, exec_properties)


def schema_hash(file: str) -> str:
    """Returns the hash of a schema's text."""
    with fileio.open(file, "rb") as opened:
        return hashlib.sha256(opened.read()).hexdigest()
