"""Measures a model on what the pipeline has ingested, apart from a run."""

import os
from typing import Any

import tensorflow as tf
from ml_metadata.proto import metadata_store_pb2
from tfx.utils import path_utils

from components.retrieval_evaluator.evaluate import evaluate
from components.retrieval_evaluator.report import judge, make_report
from models.saved_towers import SavedTowers
from pipeline.config import PipelineConfig
from pipeline.metadata_store import has_metadata, open_store


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
    folder = os.path.join(str(config.run_dir / "artifacts"), component, key, "")
    if has_metadata(config):
        found = [
            (artifact.id, artifact.uri)
            for artifact in open_store(config).get_artifacts()
            if artifact.uri.startswith(folder)
            and artifact.state == metadata_store_pb2.Artifact.LIVE
            and os.path.exists(artifact.uri)
        ]
        if found:
            return str(max(found)[1])
    raise EvaluationError(
        f"no run of {config.name} has got to {component} yet: there is nothing in {folder}; run "
        f"`two-tower run --config {config.name}` first"
    )


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
