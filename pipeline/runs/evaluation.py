"""Evaluation of a model on the newest ingested data, and lookup of the outputs of runs."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
from ml_metadata import MetadataStore, errors
from ml_metadata.proto import metadata_store_pb2
from tfx.utils import path_utils

from components.retrieval_evaluator.evaluate import evaluate
from components.retrieval_evaluator.gate import decide
from models.towers.saved_towers import SavedTowers
from pipeline.config.project import PipelineConfig
from pipeline.errors import EvaluationError
from pipeline.runs.metadata import RUN_TYPE, has_metadata, open_store


def newest_output(config: PipelineConfig, component: str, key: str) -> str:
    """Return the URI of the newest output of a component in any run.

    Args:
        config: Configuration of the project.
        component: Name of the component.
        key: Key of the output.

    Raises:
        EvaluationError: No run of this project has such an output.
    """
    folder = _folder(config, component, key)
    if has_metadata(config):
        newest = _newest_in(folder, open_store(config).get_artifacts())
        if newest is not None:
            return newest
    raise EvaluationError(
        f"no run of {config.name} has finished {component}: {folder} is empty. Run "
        f"`two-tower run --config {config.name}` first"
    )


def newest_run_outputs(config: PipelineConfig, keys: Mapping[str, str]) -> dict[str, str]:
    """Return the URIs of outputs of the newest run that wrote or reused all of them.

    Args:
        config: Configuration of the project.
        keys: Output key by component name.

    Returns:
        URI by component name.

    Raises:
        EvaluationError: No run of this project has all outputs.
    """
    if has_metadata(config):
        store = open_store(config)
        try:
            runs = store.get_contexts_by_type(RUN_TYPE)
        except errors.NotFoundError:
            runs = []
        for run in sorted(runs, key=lambda context: context.id, reverse=True):
            outputs = _outputs_of(store, run)
            newest = {name: _newest_in(_folder(config, name, keys[name]), outputs) for name in keys}
            found = {name: uri for name, uri in newest.items() if uri is not None}
            if len(found) == len(keys):
                return found
    raise EvaluationError(
        f"no run of {config.name} has the outputs of {', '.join(keys)}. Run "
        f"`two-tower run --config {config.name}` first"
    )


def _folder(config: PipelineConfig, component: str, key: str) -> str:
    return os.path.join(str(config.run_dir / "artifacts"), component, key, "")


def _outputs_of(
    store: MetadataStore, run: metadata_store_pb2.Context
) -> list[metadata_store_pb2.Artifact]:
    executions = [execution.id for execution in store.get_executions_by_context(run.id)]
    if not executions:
        return []
    outputs = {
        event.artifact_id
        for event in store.get_events_by_execution_ids(executions)
        if event.type == metadata_store_pb2.Event.OUTPUT
    }
    artifacts: list[metadata_store_pb2.Artifact] = store.get_artifacts_by_id(sorted(outputs))
    return artifacts


def _newest_in(folder: str, artifacts: Iterable[metadata_store_pb2.Artifact]) -> str | None:
    found = [
        (artifact.id, artifact.uri)
        for artifact in artifacts
        if artifact.uri.startswith(folder)
        and artifact.state == metadata_store_pb2.Artifact.LIVE
        and os.path.exists(artifact.uri)
    ]
    return str(max(found)[1]) if found else None


def evaluate_model(config: PipelineConfig, model_dir: str | None = None) -> dict[str, Any]:
    """Evaluate a model and the baselines on the newest ingested Examples.

    Args:
        config: Configuration of the project. Its split and columns must be those of the run that
            ingested the data.
        model_dir: A SavedModel with `embed_query` and `embed_candidate`, such as a pushed version,
            or the folder that contains it as `Format-Serving`. If None, the newest trained model.

    Returns:
        The content of `evaluation.json`, and the paths `model` and `examples`.

    Raises:
        EvaluationError: The model or the data of a run is missing, or the model does not accept the
            queries of this configuration.
    """
    examples = newest_output(config, "TimelineExampleGen", "examples")
    folder = model_dir or newest_output(config, "Trainer", "model")
    directory = next(
        (
            path
            for path in (folder, path_utils.serving_model_dir(folder))
            if tf.io.gfile.exists(os.path.join(path, "saved_model.pb"))
        ),
        None,
    )
    if directory is None:
        raise EvaluationError(f"{folder} must be a SavedModel, but contains no saved_model.pb")
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
            f"the model in {directory} must accept the queries of this configuration, but fails: "
            f"{first}"
        ) from error
    report = evaluation.report(settings, decide(evaluation, settings).to_json())
    return {"config": config.name, "model": directory, "examples": examples, **report}
