"""Execute BigQuery queries and write their rows to Parquet files, which ingestion then reads.

The tests replace Beam's BigQuery reader. The code has not been run against the service.
"""

import importlib
import uuid
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import google.auth
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import GoogleCloudOptions
from google.auth.exceptions import DefaultCredentialsError

from components import files
from components.beam_results import MakePipeline, run_and_collect
from components.interactions.config import (
    SOURCE_SETTINGS,
    SOURCES,
    BigQueryConfig,
    IngestConfig,
    Source,
)
from components.interactions.errors import NoInputError, QueryError
from components.interactions.spans.pattern import query_of

_BLOCK_ROWS = 50_000
# Without these modules, Beam's reader can be imported but fails when it is used.
_EXTRA_MODULES = ("apitools", "google.cloud.bigquery", "google.cloud.bigquery_storage_v1")


def export_queries(
    config: IngestConfig,
    folder: str,
    make_pipeline: MakePipeline,
    sources: Sequence[Source] = SOURCES,
) -> IngestConfig:
    """Execute queries, and return a configuration that has their result files instead.

    The Parquet files of the results are written to an existing folder. `make_pipeline` is called
    once if there are queries; otherwise `config` is returned.

    Raises:
        QueryError: The extra `bigquery` or the Google credentials are missing.
        NoInputError: The result of a query has no rows.
    """
    settings = config.data.bigquery
    queries = {
        source: query_of(getattr(config.data, source)) or ""
        for source in config.data.queried
        if source in sources
    }
    if not queries or settings is None:
        return config
    reader = load_reader()
    blocks = run_and_collect(
        make_pipeline, lambda pipeline: _read(pipeline, reader, queries, settings, folder), folder
    )
    patterns: dict[str, str] = {source: f"{folder}/{source}-*.parquet" for source in queries}
    for source in queries:
        # `blocks` does not include files that a failed worker left behind.
        written = sorted(path for its_source, path in blocks if its_source == source)
        if not written:
            raise NoInputError(f"`{SOURCE_SETTINGS[source]}`: the query has no rows")
        names = [f"{folder}/{source}-{number:05d}.parquet" for number in range(len(written))]
        files.rename(written, names)
    data = config.data.model_copy(update=patterns)
    return config.model_copy(update={"data": data, "unordered_sources": tuple(queries)})


def load_reader() -> tuple[Any, Any]:
    """Return Beam's classes for reading BigQuery and for naming a dataset.

    Its dependencies and the credentials are checked first.

    Raises:
        QueryError: The extra `bigquery` or the Google credentials are missing.
    """
    try:
        for module in _EXTRA_MODULES:
            importlib.import_module(module)
    except ImportError as error:
        raise QueryError(
            f"a BigQuery query needs the extra `bigquery` of setup.py ({error}); docs/data.md "
            "explains how to install it"
        ) from error
    try:
        # Without credentials, Beam's client would wait for a login in a browser.
        google.auth.default()
    except DefaultCredentialsError as error:
        raise QueryError(f"a BigQuery query needs Google credentials: {error}") from error
    from apache_beam.io.gcp.bigquery import ReadFromBigQuery
    from apache_beam.io.gcp.internal.clients.bigquery import DatasetReference

    return ReadFromBigQuery, DatasetReference


def _read(
    pipeline: beam.Pipeline,
    reader: tuple[Any, Any],
    queries: dict[Source, str],
    settings: BigQueryConfig,
    folder: str,
) -> beam.PCollection:
    read, dataset = reader
    options = pipeline.options.view_as(GoogleCloudOptions)
    # Beam removes the temporary dataset only if it is in this project.
    options.project = options.project or settings.project
    where = {}
    if settings.temp_dataset is not None:
        where["temp_dataset"] = dataset(projectId=settings.project, datasetId=settings.temp_dataset)
    written = [
        pipeline
        | f"Query_{source}"
        >> read(
            query=query,
            project=settings.project,
            use_standard_sql=True,
            # Read directly from the service: an export would need a Cloud Storage bucket.
            method="DIRECT_READ",
            use_native_datetime=True,
            **where,
        )
        | f"Blocks_{source}"
        >> beam.BatchElements(min_batch_size=_BLOCK_ROWS, max_batch_size=_BLOCK_ROWS)
        | f"Write_{source}" >> beam.Map(_write_block, source, folder)
        for source, query in queries.items()
    ]
    return written | "Written" >> beam.Flatten()


def _write_block(rows: list[dict[str, Any]], source: Source, folder: str) -> tuple[Source, str]:
    path = f"{folder}/exported-{uuid.uuid4().hex}"
    with files.open_to_write(path) as stream:
        pq.write_table(pa.Table.from_pylist(rows), stream)
    return source, path
