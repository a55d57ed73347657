"""Summary of a run: metrics, gates, pushed version and timings, read from its artifacts."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
from tfx.components.util import model_utils
from tfx.dsl.io import fileio
from tfx.types import Artifact
from tfx.utils import io_utils

from components.stock.pusher import NEWLY_PUSHED_PROPERTY
from components.artifacts import NotBlessedError
from components.blessed_models.resolvers import MODEL_BLESSING_KEY
from components.drift_gate.component import REPORT_FILE as DRIFT_REPORT_FILE
from components.drift_gate.component import DriftError
from components.index_builder.gate import IndexRefusedError
from components.index_builder.index_report import REPORT_FILE as INDEX_REPORT_FILE
from components.interactions.report import REPORT_FILE
from components.retrieval_evaluator.evaluate import EVALUATION_FILE
from components.artifacts import TRIALS_FILE
from models.training.trainer import FIT_FILE, WARM_START_FILE
from pipeline.definition import BLESSED_MODEL
from pipeline.errors import ComponentFailedError
from pipeline.orchestrators.local.runner import ComponentOutcome


@dataclass
class RunSummary:
    """The results of a run, which may have failed or been refused by a gate.

    Attributes:
        config: Name of the configuration.
        run_id: ID of the run in ML Metadata.
        serving_dir: Base path of the served versions.
        metrics: Metrics by ranker, with the configured `evaluation.exclude_seen`.
        metrics_other: Metrics by ranker, with the opposite value of `evaluation.exclude_seen`.
        evaluation: The complete evaluation report.
        gates: `passed` or `refused` for each gate that was reached (drift, evaluation, index,
            server); for the drift gate also `nothing to compare`.
        blessed: Whether the evaluation gate accepted the model, in this run or an earlier one.
        pushed_version: Version that contains the model of this run, or None.
        newly_pushed: Whether this run pushed the version; False if an earlier run did.
        index: The index report.
        drift: The report of the drift gate; empty if spans are not compared.
        spans: Spans that were read, by source, and missing spans; empty if inputs have no spans.
        fit: Wall time and CPU time in seconds, and number of epochs of the training.
        warm_start: Model that training started from, and the number of kept, new and gone entries
            of each vocabulary; empty if warm starts are off.
        tuning: Metric, trials and best values of a search; empty without tuning.
        tuned_config: Path of a configuration with the best values, or None.
        component_seconds: Wall time of each component, in seconds.
        component_states: `complete` or `cached` for each component.
        total_seconds: Seconds since the process started, including imports.
        failure: The error of the component that failed or refused, or None.
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
        """True if the run ended because a gate refused it."""
        failure = self.failure
        return failure is not None and isinstance(failure.__cause__, NotBlessedError)

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON-serializable data, without the long evaluation report."""
        content = {**self.__dict__, "error": str(self.failure) if self.failure else None}
        del content["evaluation"], content["failure"]
        return content

    def fill(self, outcomes: Mapping[str, ComponentOutcome]) -> None:
        """Set the attributes from the outcomes of the components and their artifacts."""
        for name, outcome in outcomes.items():
            self.component_seconds[name] = round(outcome.seconds, 2)
            self.component_states[name] = outcome.state
        ingestion = _output(outcomes, "TimelineExampleGen", "report")
        if ingestion is not None:
            self.spans = _json(ingestion.uri, REPORT_FILE)["spans"] or {}
        cause = self.failure.__cause__ if self.failure is not None else None
        profile = _output(outcomes, "DriftGate", "profile")
        if profile is not None:
            self.drift = _json(profile.uri, DRIFT_REPORT_FILE)
        elif isinstance(cause, DriftError):
            self.drift = cause.report
        trials = _output(outcomes, "Tuner", "tuner_results")
        if trials is not None:
            report = _json(trials.uri, TRIALS_FILE)
            # Like KerasTuner, `max` returns the first of equally good trials.
            ended = [trial for trial in report["trials"] if trial["score"] is not None]
            best = max(ended, key=lambda trial: float(trial["score"]))
            self.tuning = {**report, "best": best["values"]}
        fit = _output(outcomes, "Trainer", "model_run")
        if fit is not None:
            self.fit = _json(fit.uri, FIT_FILE)
            self.warm_start = _json(fit.uri, WARM_START_FILE)
        evaluation = _output(outcomes, "RetrievalEvaluator", "evaluation")
        if evaluation is not None:
            self.evaluation = report = _json(evaluation.uri, EVALUATION_FILE)
            self.metrics, self.metrics_other = report["metrics"], report["metrics_other"]
            self.blessed = report["gate"]["blessed"]
        elif _output(outcomes, BLESSED_MODEL, MODEL_BLESSING_KEY) is not None:
            self.blessed = True
        index = _output(outcomes, "IndexBuilder", "report")
        if index is not None:
            self.index = _json(index.uri, INDEX_REPORT_FILE)
        elif isinstance(cause, IndexRefusedError):
            self.index = cause.report
        pushed = _output(outcomes, "Pusher", "pushed_model")
        if pushed is not None and pushed.get_int_custom_property("pushed") == 1:
            self.pushed_version = int(pushed.get_string_custom_property("pushed_version"))
            self.newly_pushed = pushed.get_int_custom_property(NEWLY_PUSHED_PROPERTY) == 1
        self.gates = self._gates(outcomes)
        self.total_seconds = round(time.time() - float(psutil.Process().create_time()), 1)

    def _gates(self, outcomes: Mapping[str, ComponentOutcome]) -> dict[str, str]:
        gates = {}
        if self.drift:
            gates["drift"] = _drift_result(self.drift, passed="DriftGate" in outcomes)
        if self.evaluation:
            gates["evaluation"] = "passed" if self.blessed else "refused"
        failed = self.failure.component if self.failure is not None else None
        if "IndexBuilder" in outcomes:
            gates["index"] = "passed"
        elif failed == "IndexBuilder" and self.is_refused:
            gates["index"] = "refused"
        infra = _output(outcomes, "ServingValidator", "blessing")
        if infra is not None:
            gates["server"] = "passed" if model_utils.is_infra_validated(infra) else "refused"
        return gates


def _drift_result(report: Mapping[str, Any], *, passed: bool) -> str:
    if not passed:
        return "refused"
    compared = [report, *report.get("earlier", ())]
    is_compared = any(found["baseline"] is not None for found in compared)
    return "passed" if is_compared else "nothing to compare"


def _json(folder: str, name: str) -> dict[str, Any]:
    """Return the content of a JSON file in an artifact; empty if the file does not exist."""
    path = os.path.join(folder, name)
    return json.loads(io_utils.read_string_file(path)) if fileio.exists(path) else {}


def _output(outcomes: Mapping[str, ComponentOutcome], name: str, key: str) -> Artifact | None:
    artifacts = outcomes[name].outputs.get(key) if name in outcomes else None
    return artifacts[0] if artifacts else None
