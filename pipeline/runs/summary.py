"""Summary of a run: metrics, gates, pushed version and timings, read from its artifacts."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
from tfx.components.util import model_utils
from tfx.types import Artifact

from components import files
from components.artifacts import TRIALS_FILE
from components.batch_recommender.recommend import REPORT_FILE as BATCH_REPORT_FILE
from components.blessed_models.resolvers import MODEL_BLESSING_KEY
from components.drift_gate.component import REPORT_FILE as DRIFT_REPORT_FILE
from components.errors import (
    CatalogueRefusedError,
    DriftError,
    IndexRefusedError,
    NotBlessedError,
)
from components.index_builder.index_report import REPORT_FILE as INDEX_REPORT_FILE
from components.interactions.report import REPORT_FILE
from components.retrieval_evaluator.evaluate import EVALUATION_FILE
from components.stock.pusher import NEWLY_PUSHED_PROPERTY
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
        is_experiment: Whether the run must not push its model.
        metrics: Metrics by ranker, with the configured `evaluation.exclude_seen`.
        metrics_other: Metrics by ranker, with the opposite value of `evaluation.exclude_seen`.
        evaluation: The complete evaluation report.
        gate_metric: Metric on which the evaluation gate compared the model; empty if there was no
            evaluation.
        gates: `passed` or `refused` for each gate that was reached (drift, evaluation, index,
            server, catalogue); for the drift gate also `nothing to compare`.
        blessed: Whether the evaluation gate accepted the model, in this run or an earlier one.
        pushed_version: Version that contains the model of this run, or None.
        newly_pushed: Whether this run pushed the version; False if an earlier run did.
        index: The index report.
        recommendations: The report of BatchRecommender, and its folder; empty if it did not run.
        drift: The report of the drift gate; empty if spans are not compared.
        warnings: Problems of the data that did not end the run, and settings without effect.
        num_below_min_rating: Number of events that `events.min_rating` excluded.
        spans: Spans that were read, by source, and missing spans; empty if inputs have no spans.
        fit: Wall time and CPU time in seconds, and number of epochs of the training.
        warm_start: Model that training started from, and the number of kept, new and gone entries
            of each vocabulary; empty if warm starts are off.
        tuning: Metric, trials and best values of a search; empty without tuning.
        tuned_config: Path of a configuration with the best values, or None.
        component_seconds: Wall time of each component, in seconds.
        component_states: `complete` or `cached` for each component.
        total_seconds: Seconds since the process started, including imports.
        report: Path of the report as HTML, or None if it is not written.
        failure: The error of the component that failed or refused, or None.
    """

    config: str
    run_id: str
    serving_dir: str
    is_experiment: bool = False
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    metrics_other: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    gate_metric: str = ""
    gates: dict[str, str] = field(default_factory=dict)
    blessed: bool = False
    pushed_version: int | None = None
    newly_pushed: bool = False
    index: Mapping[str, Any] = field(default_factory=dict)
    recommendations: Mapping[str, Any] = field(default_factory=dict)
    drift: Mapping[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    num_below_min_rating: int = 0
    spans: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    warm_start: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    tuned_config: str | None = None
    component_seconds: dict[str, float] = field(default_factory=dict)
    component_states: dict[str, str] = field(default_factory=dict)
    total_seconds: float = 0.0
    report: str | None = None
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
        ingestion = _report(outcomes, "TimelineExampleGen", "report", REPORT_FILE)
        self.spans = ingestion.get("spans") or {}
        catalogue = _report(outcomes, "CatalogueExampleGen", "report", REPORT_FILE)
        self.warnings = [*ingestion.get("warnings", ()), *catalogue.get("warnings", ())]
        self.drift = _report(outcomes, "DriftGate", "profile", DRIFT_REPORT_FILE) or self.drift
        self.index = _report(outcomes, "IndexBuilder", "report", INDEX_REPORT_FILE)
        # The outputs of a component that failed no longer exist.
        cause = self.failure.__cause__ if self.failure is not None else None
        if isinstance(cause, DriftError):
            self.drift = cause.report
        elif isinstance(cause, IndexRefusedError):
            self.index = cause.report
        if tuning := _report(outcomes, "Tuner", "tuner_results", TRIALS_FILE):
            # Like KerasTuner, `max` returns the first of equally good trials.
            ended = [trial for trial in tuning["trials"] if trial["score"] is not None]
            best = max(ended, key=lambda trial: float(trial["score"]))
            self.tuning = {**tuning, "best": best["values"]}
        self.num_below_min_rating = ingestion.get("events_below_min_rating", 0)
        self.fit = _report(outcomes, "Trainer", "model_run", FIT_FILE)
        self.warnings += self.fit.get("warnings", [])
        self.warm_start = _report(outcomes, "Trainer", "model_run", WARM_START_FILE)
        self.evaluation = _report(outcomes, "RetrievalEvaluator", "evaluation", EVALUATION_FILE)
        if self.evaluation:
            self.metrics = self.evaluation["metrics"]
            self.gate_metric = self.evaluation["gate_metric"]
            self.metrics_other = self.evaluation["metrics_other"]
            self.blessed = self.evaluation["gate"]["blessed"]
        elif _output(outcomes, BLESSED_MODEL, MODEL_BLESSING_KEY) is not None:
            self.blessed = True
        pushed = _output(outcomes, "Pusher", "pushed_model")
        if pushed is not None and pushed.get_int_custom_property("pushed") == 1:
            self.pushed_version = int(pushed.get_string_custom_property("pushed_version"))
            self.newly_pushed = pushed.get_int_custom_property(NEWLY_PUSHED_PROPERTY) == 1
        key = "recommendations"
        if batch := _report(outcomes, "BatchRecommender", key, BATCH_REPORT_FILE):
            folder = _output(outcomes, "BatchRecommender", key)
            self.recommendations = {**batch, "folder": folder and folder.uri}
        self.gates = self._gates(outcomes)
        self.total_seconds = round(time.time() - float(psutil.Process().create_time()), 1)

    def _gates(self, outcomes: Mapping[str, ComponentOutcome]) -> dict[str, str]:
        results: dict[str, bool] = {}
        if self.drift:
            results["drift"] = "DriftGate" in outcomes
        if self.evaluation:
            results["evaluation"] = self.blessed
        failed = self.failure.component if self.is_refused and self.failure is not None else None
        if "IndexBuilder" in outcomes or failed == "IndexBuilder":
            results["index"] = "IndexBuilder" in outcomes
        infra = _output(outcomes, "ServingValidator", "blessing")
        if infra is not None:
            results["server"] = model_utils.is_infra_validated(infra)
        is_removal = isinstance(self.failure and self.failure.__cause__, CatalogueRefusedError)
        if "Pusher" in outcomes or is_removal:
            results["catalogue"] = not is_removal
        gates = {name: "passed" if passed else "refused" for name, passed in results.items()}
        compared = [self.drift, *self.drift.get("earlier", ())]
        if results.get("drift") and all(found["reference"] is None for found in compared):
            gates["drift"] = "nothing to compare"
        return gates


def _report(
    outcomes: Mapping[str, ComponentOutcome], name: str, key: str, file: str
) -> dict[str, Any]:
    """Return the content of a JSON file in an output; empty if there is no such file."""
    output = _output(outcomes, name, key)
    path = "" if output is None else os.path.join(output.uri, file)
    return json.loads(files.read_text(path)) if path and files.exists(path) else {}


def _output(outcomes: Mapping[str, ComponentOutcome], name: str, key: str) -> Artifact | None:
    artifacts = outcomes[name].outputs.get(key) if name in outcomes else None
    return artifacts[0] if artifacts else None
