"""Measures a model on what the pipeline has ingested, apart from a run."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
from ml_metadata import MetadataStore, errors
from ml_metadata.proto import metadata_store_pb2
from tfx.utils import path_utils

from components.retrieval_evaluator.evaluate import evaluate
from components.retrieval_evaluator.report import judge, make_report
from models.towers.saved_towers import SavedTowers
from pipeline.config.project import PipelineConfig
from pipeline.runs.metadata import has_metadata, open_store
from pipeline.runs.metadata import RUN_TYPE


class EvaluationError(Exception):
    """There is nothing to evaluate, or it cannot be; the message says what to do."""


def newest_output(config: PipelineConfig, component: str, key: str) -> str:
    """Returns the URI of a component's newest output.

    Args:
        config: The use.
        component: Its name in the pipeline.
        key: Of the output.

    Raises:
        EvaluationError: No run of this configuration has got so far.
    """
    folder = _folder(config, component, key)
    if has_metadata(config):
        newest = _newest_below(folder, open_store(config).get_artifacts())
        if newest is not None:
            return newest
    raise EvaluationError(
        f"no run of {config.name} has got to {component} yet: there is nothing in {folder}; run "
        f"`two-tower run --config {config.name}` first"
    )


def newest_run_outputs(config: PipelineConfig, keys: Mapping[str, str]) -> dict[str, str]:
    """Returns the URIs that components put out in the newest run in which all of them did.

    Outputs that a run took from the cache are its own too.

    Args:
        config: The use.
        keys: The output's key, by component.

    Raises:
        EvaluationError: In no run of this configuration did all of them.
    """
    if has_metadata(config):
        store = open_store(config)
        try:
            runs = store.get_contexts_by_type(RUN_TYPE)
        except errors.NotFoundError:
            runs = []
        for run in sorted(runs, key=lambda context: context.id, reverse=True):
            made = _made_in(store, run)
            newest = {name: _newest_below(_folder(config, name, keys[name]), made) for name in keys}
            found = {name: uri for name, uri in newest.items() if uri is not None}
            if len(found) == len(keys):
                return found
    raise EvaluationError(
        f"no run of {config.name} has left what is needed of {', '.join(keys)} together; run "
        f"`two-tower run --config {config.name}` first"
    )


def _folder(config: PipelineConfig, component: str, key: str) -> str:
    return os.path.join(str(config.run_dir / "artifacts"), component, key, "")


def _made_in(
    store: MetadataStore, run: metadata_store_pb2.Context
) -> list[metadata_store_pb2.Artifact]:
    executions = [execution.id for execution in store.get_executions_by_context(run.id)]
    if not executions:
        return []
    made = {
        event.artifact_id
        for event in store.get_events_by_execution_ids(executions)
        if event.type == metadata_store_pb2.Event.OUTPUT
    }
    artifacts: list[metadata_store_pb2.Artifact] = store.get_artifacts_by_id(sorted(made))
    return artifacts


def _newest_below(folder: str, artifacts: Iterable[metadata_store_pb2.Artifact]) -> str | None:
    found = [
        (artifact.id, artifact.uri)
        for artifact in artifacts
        if artifact.uri.startswith(folder)
        and artifact.state == metadata_store_pb2.Artifact.LIVE
        and os.path.exists(artifact.uri)
    ]
    return str(max(found)[1]) if found else None


def evaluate_model(config: PipelineConfig, model_dir: str | None = None) -> dict[str, Any]:
    """Evaluates a model on the newest ingested Examples, beside the baselines.

    Args:
        config: The use; the split and the columns are those of the run that ingested.
        model_dir: A SavedModel with `embed_query` and `embed_candidate`, such as a pushed version,
            or the folder that holds it as `Format-Serving`; None takes the newest trained model.

    Returns:
        What `evaluation.json` holds, and the paths `model` and `examples`.

    Raises:
        EvaluationError: There is no such model or no run, or the model does not fit.
    """
    examples = newest_output(config, "TimelineExampleGen", "examples")
    place = model_dir or newest_output(config, "Trainer", "model")
    directory = next(
        (
            path
            for path in (place, path_utils.serving_model_dir(place))
            if tf.io.gfile.exists(os.path.join(path, "saved_model.pb"))
        ),
        None,
    )
    if directory is None:
        raise EvaluationError(f"{place} must be a SavedModel; there is no saved_model.pb in it")
    settings = config.evaluation.for_split(
        config.split.method, has_times=config.columns.timestamp is not None
    )
    try:
        towers = SavedTowers(directory, config.spec)
        evaluation, _ = evaluate(towers, examples, config.spec, settings)
    except FileNotFoundError as error:
        raise EvaluationError(f"{error}; run the pipeline with this configuration first") from error
    except (OSError, ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        first = str(error).strip().partition("\n")[0]
        raise EvaluationError(
            f"the model in {directory} cannot be asked the questions of this configuration: {first}"
        ) from error
    report = make_report(evaluation, judge(evaluation, settings), settings)
    return {"config": config.name, "model": directory, "examples": examples, **report}
