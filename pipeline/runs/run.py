"""One run of a configuration on this machine, and what came of it."""

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
from components.interactions.report import REPORT_FILE
from tfx.components.util import model_utils
from tfx.dsl.io import fileio
from tfx.orchestration.pipeline import Pipeline
from tfx.types import Artifact
from tfx.utils import io_utils

from components.atomic_pusher.executor import NEWLY_PUSHED_PROPERTY
from components.blessed_models.blessings import NotBlessedError
from components.blessed_models.resolvers import MODEL_BLESSING_KEY
from components.drift_gate.component import REPORT_FILE as DRIFT_REPORT_FILE
from components.drift_gate.component import DriftError
from components.index_builder.errors import IndexRefusedError
from components.index_builder.index_report import REPORT_FILE as INDEX_REPORT_FILE
from components.retrieval_evaluator.report import EVALUATION_FILE
from components.trial_report.executor import TRIALS_FILE
from models.training.trainer import FIT_FILE, WARM_START_FILE
from pipeline.config.project import PipelineConfig
from pipeline.definition import BLESSED_MODEL, create_pipeline, create_refresh_pipeline
from pipeline.orchestrators.local.runner import (
    ComponentFailedError,
    ComponentOutcome,
    ObservedLocalRunner,
    Observer,
)
from pipeline.config.tuned import write_tuned_config
from serving.standby import standby_server

log = logging.getLogger(__name__)

# The cache does not see an edit of the executor that the stock ExampleValidator is given here, and
# it takes a tenth of a second. The pusher sees itself whether the newest version already is the
# model in question; the cache knows nothing of the serving directory.
NEVER_CACHED = frozenset({"Pusher", "ExampleValidator"})


@dataclass
class RunSummary:
    """What a run did, also where it failed.

    Attributes:
        config: Name of the configuration.
        run_id: In ML Metadata.
        metrics: By contender, seen candidates treated as the configuration says.
        metrics_other: The same, treated the other way.
        evaluation: The whole report of the evaluation.
        gates: `passed` or `refused`, by gate that was reached: drift, evaluation, index, server;
            of drift also `nothing to compare`.
        blessed: Whether the evaluation gate let the model pass, in this run or before.
        pushed_version: Version that holds this model, pushed now or before; None where none does.
        newly_pushed: Whether this run pushed it.
        serving_dir: Base path of the served versions.
        index: The index report.
        drift: The report of the drift gate; empty where spans are not compared.
        spans: The spans that were read, by source, and those missing; empty without spans.
        fit: Seconds, CPU seconds and epochs of the fit.
        warm_start: From which model the fit began and what it took over; empty without one.
        tuning: The metric, its trials and the best values; empty where nothing was searched.
        tuned_config: A configuration with the best values; None where nothing was searched.
        component_seconds: Wall time of each component that ran.
        component_states: `complete` or `cached`, by component.
        total_seconds: Since the process started, imports included.
        failure: The failed component and why, None where all went well.
    """

    config: str
    run_id: str
    serving_dir: str
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    metrics_other: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    gates: dict[str, str] = field(default_factory=dict)
    blessed: bool = False
    pushed_version: int | None = None
    newly_pushed: bool = False
    index: Mapping[str, Any] = field(default_factory=dict)
    drift: Mapping[str, Any] = field(default_factory=dict)
    spans: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    warm_start: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    tuned_config: str | None = None
    component_seconds: dict[str, float] = field(default_factory=dict)
    component_states: dict[str, str] = field(default_factory=dict)
    total_seconds: float = 0.0
    failure: ComponentFailedError | None = None

    @property
    def is_refused(self) -> bool:
        """Whether a gate ended the run, and not an error."""
        failure = self.failure
        return failure is not None and isinstance(failure.__cause__, NotBlessedError)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "config": self.config,
            "run_id": self.run_id,
            "metrics": self.metrics,
            "metrics_other": self.metrics_other,
            "gates": self.gates,
            "blessed": self.blessed,
            "pushed_version": self.pushed_version,
            "newly_pushed": self.newly_pushed,
            "serving_dir": self.serving_dir,
            "index": self.index,
            "drift": self.drift,
            "spans": self.spans,
            "fit": self.fit,
            "warm_start": self.warm_start,
            "tuning": self.tuning,
            "tuned_config": self.tuned_config,
            "component_seconds": self.component_seconds,
            "component_states": self.component_states,
            "total_seconds": self.total_seconds,
            "error": str(self.failure) if self.failure else None,
        }


def run(
    config: PipelineConfig, run_id: str, observer: Observer, *, fresh: bool = False
) -> RunSummary:
    """Runs the pipeline; a failed component ends it and stands in the summary.

    The caller holds `pipeline.runs.lock`.

    Args:
        config: The use.
        run_id: Of this run.
        observer: Is told of each component.
        fresh: Take nothing from the cache or from a killed run's checkpoints.

    Raises:
        ConfigError: A file that the configuration names is missing.
        IngestError: The input files cannot be read.
    """
    if fresh:
        shutil.rmtree(config.run_dir / "checkpoints", ignore_errors=True)
    return _run(config, create_pipeline(config, enable_cache=not fresh), run_id, observer)


def refresh_index(config: PipelineConfig, run_id: str, observer: Observer) -> RunSummary:
    """Brings the catalogue as it is now into service, with the model that was blessed last.

    The caller holds `pipeline.runs.lock`.

    Args:
        config: The use.
        run_id: Of this run.
        observer: Is told of each component.

    Raises:
        ConfigError: A file that the configuration names is missing, or it names no catalogue.
        IngestError: The input files cannot be read.
    """
    summary = _run(config, create_refresh_pipeline(config), run_id, observer)
    # What a component raised itself is told as it is; this one found no model.
    if summary.failure and summary.failure.__cause__ is None and not summary.blessed:
        summary.failure = ComponentFailedError(
            BLESSED_MODEL,
            "no model has been blessed yet, or what it was made of is gone, so there is none to "
            "embed the catalogue with; run the whole pipeline first",
        )
    return summary


def _run(config: PipelineConfig, pipeline: Pipeline, run_id: str, observer: Observer) -> RunSummary:
    summary = RunSummary(config.name, run_id, config.serving_dir)
    with contextlib.ExitStack() as stack:
        runner = ObservedLocalRunner(run_id, _ServerAhead(observer, stack), NEVER_CACHED)
        try:
            runner.run(pipeline)
        except ComponentFailedError as failure:
            log.exception("the run ended at %s", failure.component)
            summary.failure = failure
    _fill(summary, runner.outcomes)
    if summary.tuning:
        summary.tuned_config = str(write_tuned_config(config, summary.tuning["best"]))
    return summary


class _ServerAhead:
    """Lets the server that ServingValidator will need import TensorFlow while others work."""

    def __init__(self, observer: Observer, stack: contextlib.ExitStack) -> None:
        self._observer = observer
        self._stack = stack
        self.component_started = observer.component_started

    def component_finished(self, outcome: ComponentOutcome) -> None:
        """As the observer; a new model also puts a server on standby."""
        self._observer.component_finished(outcome)
        if outcome.name == "Trainer" and outcome.state == "complete":
            self._stack.enter_context(standby_server())


def _fill(summary: RunSummary, outcomes: Mapping[str, ComponentOutcome]) -> None:
    for name, outcome in outcomes.items():
        summary.component_seconds[name] = round(outcome.seconds, 2)
        summary.component_states[name] = outcome.state
    ingested = _output(outcomes, "TimelineExampleGen", "report")
    if ingested is not None:
        summary.spans = _json(ingested.uri, REPORT_FILE)["spans"] or {}
    cause = summary.failure.__cause__ if summary.failure is not None else None
    profile = _output(outcomes, "DriftGate", "profile")
    if profile is not None:
        summary.drift = _json(profile.uri, DRIFT_REPORT_FILE)
    elif isinstance(cause, DriftError):
        summary.drift = cause.report
    results = _output(outcomes, "Tuner", "tuner_results")
    if results is not None:
        report = _json(results.uri, TRIALS_FILE)
        # The first of the best, as KerasTuner has it.
        ended = [trial for trial in report["trials"] if trial["score"] is not None]
        best = max(ended, key=lambda trial: float(trial["score"]))
        summary.tuning = {**report, "best": best["values"]}
    fit = _output(outcomes, "Trainer", "model_run")
    if fit is not None:
        summary.fit = _json(fit.uri, FIT_FILE)
        summary.warm_start = _json(fit.uri, WARM_START_FILE)
    evaluation = _output(outcomes, "RetrievalEvaluator", "evaluation")
    if evaluation is not None:
        summary.evaluation = report = _json(evaluation.uri, EVALUATION_FILE)
        summary.metrics, summary.metrics_other = report["metrics"], report["metrics_other"]
        summary.blessed = report["gate"]["blessed"]
    elif _output(outcomes, BLESSED_MODEL, MODEL_BLESSING_KEY) is not None:
        summary.blessed = True
    index = _output(outcomes, "IndexBuilder", "report")
    if index is not None:
        summary.index = _json(index.uri, INDEX_REPORT_FILE)
    elif isinstance(cause, IndexRefusedError):
        summary.index = cause.report
    pushed = _output(outcomes, "Pusher", "pushed_model")
    if pushed is not None and pushed.get_int_custom_property("pushed") == 1:
        summary.pushed_version = int(pushed.get_string_custom_property("pushed_version"))
        summary.newly_pushed = pushed.get_int_custom_property(NEWLY_PUSHED_PROPERTY) == 1
    summary.gates = _gates(summary, outcomes)
    summary.total_seconds = round(_seconds_since_process_start(), 1)


def _gates(summary: RunSummary, outcomes: Mapping[str, ComponentOutcome]) -> dict[str, str]:
    gates = {}
    if summary.drift:
        gates["drift"] = _drift_word(summary.drift, passed="DriftGate" in outcomes)
    if summary.evaluation:
        gates["evaluation"] = "passed" if summary.blessed else "refused"
    failed = summary.failure.component if summary.failure is not None else None
    if "IndexBuilder" in outcomes:
        gates["index"] = "passed"
    elif failed == "IndexBuilder" and summary.is_refused:
        gates["index"] = "refused"
    infra = _output(outcomes, "ServingValidator", "blessing")
    if infra is not None:
        gates["server"] = "passed" if model_utils.is_infra_validated(infra) else "refused"
    return gates


def _drift_word(report: Mapping[str, Any], *, passed: bool) -> str:
    if not passed:
        return "refused"
    compared = [report, *report.get("earlier", ())]
    is_compared = any(found["baseline"] is not None for found in compared)
    return "passed" if is_compared else "nothing to compare"


def _json(folder: str, name: str) -> dict[str, Any]:
    """Returns what a file of an artifact holds; nothing where it was not written."""
    path = os.path.join(folder, name)
    return json.loads(io_utils.read_string_file(path)) if fileio.exists(path) else {}


def _output(outcomes: Mapping[str, ComponentOutcome], name: str, key: str) -> Artifact | None:
    artifacts = outcomes[name].outputs.get(key) if name in outcomes else None
    return artifacts[0] if artifacts else None


def _seconds_since_process_start() -> float:
    return time.time() - float(psutil.Process().create_time())
