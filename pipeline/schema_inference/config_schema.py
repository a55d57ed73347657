"""Inference of a schema from a project's data, and comparison of the curated schema with it."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import apache_beam as beam
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components import files
from components.interactions.errors import IngestError
from components.interactions.sources.bigquery import export_queries
from pipeline.config.project import PipelineConfig
from pipeline.errors import SchemaError, reason_of
from pipeline.schema_inference import DEFAULT_MAX_ROWS
from pipeline.schema_inference.inferred_schema import infer_schema, schema_text
from pipeline.schema_inference.observation import Observation, observe
from pipeline.schema_inference.schema_differences import Difference, find_differences


@dataclass(frozen=True)
class Comparison:
    """The curated schema's file, the statistics of the data, and what would stop a run."""

    file: Path
    observed: Observation
    differences: list[Difference]


def write_inferred_schema(
    config: PipelineConfig, output: Path, *, force: bool = False, max_rows: int = DEFAULT_MAX_ROWS
) -> Observation:
    """Infer a schema from the data of a project, write it, and return statistics of the data.

    About `max_rows` rows are read from each input. `force` replaces an existing file.

    Raises:
        SchemaError: The file exists, or the data cannot be read.
    """
    if output.exists() and not force:
        raise SchemaError(
            f"{output} exists and may contain edits: compare it with `two-tower schema diff`, "
            "choose another file with --output, or replace it with --force"
        )
    observed = _observe(config, max_rows)
    write_text_file(output, schema_text(infer_schema(observed), observed, config.name))
    return observed


def compare_with_curated_schema(
    config: PipelineConfig, max_rows: int = DEFAULT_MAX_ROWS
) -> Comparison:
    """Compare the curated schema of a project with its data.

    Raises:
        SchemaError: The schema is missing or unreadable, or the data cannot be read.
    """
    file = Path(config.schema_file)
    schema = read_schema(file)
    observed = _observe(config, max_rows)
    return Comparison(file, observed, find_differences(schema, observed))


def read_schema(file: Path) -> schema_pb2.Schema:
    """Read a schema from a text file.

    Raises:
        SchemaError: The file is missing or not a schema.
    """
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), schema_pb2.Schema())
    except FileNotFoundError as error:
        raise SchemaError(
            f"there is no schema {file}; infer a first one with `two-tower schema infer`"
        ) from error
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise SchemaError(f"{file} cannot be read as a schema: {reason_of(error)}") from error


def write_text_file(file: Path, text: str) -> None:
    """Write a file atomically; its folder is created if needed.

    Raises:
        SchemaError: The file cannot be written.
    """
    try:
        files.write_text(file, text)
    except OSError as error:
        raise SchemaError(f"{file} cannot be written: {reason_of(error)}") from error


def _observe(config: PipelineConfig, max_rows: int) -> Observation:
    try:
        with TemporaryDirectory() as folder:
            ingest = export_queries(
                config.ingestion, folder, lambda: beam.Pipeline(argv=config.beam.pipeline_args)
            )
            return observe(ingest, max_rows)
    except IngestError as error:
        raise SchemaError(str(error)) from error
