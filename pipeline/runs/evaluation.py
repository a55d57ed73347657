"""Find the newest outputs of runs, to evaluate a model or to get real queries."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from ml_metadata import errors
from tfx.utils import path_utils

from components import files
from components.retrieval_evaluator.evaluate import evaluate
from components.retrieval_evaluator.gate import decide
from models.features.spec import HISTORY_KEY, HISTORY_TYPES_KEY, FeatureSpec
from models.input.raw_examples import read_timelines, split_files
from models.towers.saved_towers import SavedTowers
from pipeline.config.project import PipelineConfig
from pipeline.errors import EvaluationError
from pipeline.runs.history import experiments_of
from pipeline.runs.metadata import RUN_TYPE, has_metadata, open_store
from pipeline.runs.results import live_outputs
from serving.clients.model import decode_text
from serving.clients.query import Query


def newest_output(
    config: PipelineConfig, component: str, key: str, *, experiments: bool = False
) -> str:
    """Return the URI of one output of the newest run that wrote or reused it.

    Raises:
        EvaluationError: No run of this project has such an output.
    """
    return newest_run_outputs(config, {component: key}, experiments=experiments)[component]


def newest_run_outputs(
    config: PipelineConfig, keys: Mapping[str, str], *, experiments: bool = False
) -> dict[str, str]:
    """Return the URIs of outputs of the newest run that wrote or reused all of them.

    `keys` has the output key by component name, and the result has the URI by component name.
    Experiments only count if `experiments` is true.

    Raises:
        EvaluationError: No run of this project has all outputs.
    """
    if has_metadata(config):
        store = open_store(config)
        try:
            runs = store.get_contexts_by_type(RUN_TYPE)
        except errors.NotFoundError:
            runs = []
        ignored = set() if experiments else experiments_of(config)
        for run in sorted(runs, key=lambda context: context.id, reverse=True):
            if run.name in ignored:
                continue
            outputs = live_outputs(config, store, run.name)
            if keys.items() <= outputs.keys():
                return {name: str(outputs[name, key].uri) for name, key in keys.items()}
    raise EvaluationError(
        f"no run of {config.name} has the outputs of {', '.join(keys)}. Run "
        f"`two-tower run --config {config.name}` first"
    )


def evaluation_queries(config: PipelineConfig, count: int) -> Sequence[Query]:
    """Return the first `count` queries of the newest evaluated split, or all if there are fewer.

    Raises:
        EvaluationError: No run has written Examples.
    """
    examples = newest_output(config, "TimelineExampleGen", "examples")
    paths = split_files(examples, config.evaluation.split)
    batch = next(read_timelines(paths, config.spec, batch_size=count))
    return client_queries(batch.inputs, config.spec)


def client_queries(inputs: Mapping[str, tf.Tensor], spec: FeatureSpec) -> list[Query]:
    """Return the queries of a client with these inputs of a signature, one per row.

    Missing values and padding are left out.
    """
    columns = {name: [_sent(v) for v in of.numpy().tolist()] for name, of in inputs.items()}
    queries = []
    for row, query_id in enumerate(columns[spec.query_id]):
        names = [*spec.request_features, *({HISTORY_TYPES_KEY} & columns.keys())]
        features = {name: columns[name][row] for name in names}
        known = {name: value for name, value in features.items() if value is not None}
        queries.append(Query(query_id or "", columns[HISTORY_KEY][row], known))
    return queries


def _sent(value: Any) -> Any:
    """Return a value in the form that a client sends, or None if it is missing."""
    if isinstance(value, list):
        if value and isinstance(value[0], float):
            return [item for item in value if not math.isnan(item)]
        return [decode_text(item) for item in value if item != b""]
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return decode_text(value) or None


def evaluate_model(config: PipelineConfig, model_dir: str | None = None) -> dict[str, Any]:
    """Evaluate a model; return the content of `evaluation.json`, and paths as `model` and `examples`.

    `model_dir` is a SavedModel of the towers, such as a pushed version, or the folder that contains
    it as `Format-Serving`; if it is None, the newest trained model is evaluated. The split and the
    columns of `config` must be those of the run that ingested the data.

    Raises:
        EvaluationError: The model or the data of a run is missing, or the model does not accept the
            queries of this configuration.
    """
    examples = newest_output(config, "TimelineExampleGen", "examples", experiments=not model_dir)
    folder = model_dir or newest_output(config, "Trainer", "model", experiments=True)
    candidates = (folder, path_utils.serving_model_dir(folder))
    directory = next(
        (p for p in candidates if files.exists(os.path.join(p, "saved_model.pb"))), None
    )
    if directory is None:
        raise EvaluationError(f"{folder} must be a SavedModel, but contains no saved_model.pb")
    settings = config.evaluation.for_split(config.split.method, config.spec)
    try:
        towers = SavedTowers(directory, config.spec)
        evaluation, *_ = evaluate(
            towers,
            examples,
            config.spec,
            settings,
            weights=config.evaluation_weights,
            left_out=config.evaluation.left_out(config.split.method, config.spec),
        )
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
