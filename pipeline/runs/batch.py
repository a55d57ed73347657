"""Recommendations for all known queries, or those of a file, without a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam

from components.batch_recommender.answers import Request
from components.batch_recommender.recommend import recommend_to_files
from components.batch_recommender.requested import RequestedQueries
from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError, EvaluationError
from pipeline.releases.answering_model import AnsweringModel
from pipeline.runs.evaluation import newest_output
from pipeline.runs.metadata import open_store
from pipeline.runs.results import live_outputs


def recommend_all(
    config: PipelineConfig,
    model: AnsweringModel,
    output: str,
    *,
    k: int,
    exclude_seen: bool = True,
    filters: Mapping[str, Sequence[str]] = {},
    queries: str | None = None,
) -> dict[str, Any]:
    """Write recommendations to a folder; see `components.batch_recommender.recommend`.

    The histories are those that the newest run ingested, or the run that `model` was named by.
    Experiments do not count as the newest run. `queries` is the path of a file with a
    column of query IDs.

    Raises:
        BatchError: The model cannot answer the request, or the output has other files.
        ConfigError: Beam's workers would not see the model.
        EvaluationError: No run has ingested events.
        IngestError: The file of the queries cannot be read.
    """
    if config.beam.has_only_remote_workers:
        raise ConfigError(
            "Beam's workers must be able to read the model and the histories, but those of "
            f"`beam.runner: {config.beam.runner}` run elsewhere; choose another `beam.runner`, or "
            "set `batch.enabled` and compile the pipeline for a cluster"
        )
    return recommend_to_files(
        model.path,
        ingested_examples(config, model.run),
        config.split.split_names[:-1],
        Request(
            spec=config.spec,
            k=k,
            index_k=config.index.k,
            exclude_seen=exclude_seen,
            filters={name: tuple(values) for name, values in filters.items()},
            model_version=model.version,
        ),
        output,
        lambda: beam.Pipeline(argv=config.beam.pipeline_args),
        None if queries is None else RequestedQueries(queries, config.ingestion),
    )


def ingested_examples(config: PipelineConfig, run: str | None) -> str:
    """Return the URI of the Examples that a run ingested, by default the newest one.

    Raises:
        EvaluationError: There are none.
    """
    if run is None:
        return newest_output(config, "TimelineExampleGen", "examples")
    found = live_outputs(config, open_store(config), run).get(("TimelineExampleGen", "examples"))
    if found is None:
        raise EvaluationError(f"the events that run {run} ingested were cleaned")
    return str(found.uri)
