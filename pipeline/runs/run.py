"""Local execution of the pipeline, an index refresh, or one component of a run."""

import contextlib
import logging
import shutil
from typing import Protocol

from tfx.orchestration.pipeline import Pipeline

from pipeline.config.file import write_tuned_config
from pipeline.config.project import PipelineConfig
from pipeline.definition import BLESSED_MODEL, create_pipeline, create_refresh_pipeline
from pipeline.errors import ComponentFailedError
from pipeline.orchestrators.local.runner import ComponentOutcome, run_component, run_components
from pipeline.orchestrators.target import Target
from pipeline.runs.earlier_runs import INGESTION, ingestion_of_run
from pipeline.runs.lock import run_lock
from pipeline.runs.summary import RunSummary
from serving.launcher import standby_server

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Callbacks that report the progress of a run."""

    def component_started(self, name: str, position: int, total: int) -> None:
        """Handle the start of the component at `position`, which counts from 1."""

    def component_finished(self, outcome: ComponentOutcome) -> None:
        """Handle the success of a component."""


def run(
    config: PipelineConfig,
    run_id: str,
    observer: Observer,
    *,
    fresh: bool = False,
    push: bool = True,
) -> RunSummary:
    """Run the pipeline until it ends or a component fails, and return a summary.

    The caller must hold the run lock. A `fresh` run ignores the cache and the checkpoints of a
    killed run. Without `push`, it is an experiment, whose model is not served. If a component
    failed, the summary has a `failure`.

    Raises:
        ConfigError: A file in the configuration is missing.
        IngestError: The input files cannot be read.
    """
    if fresh:
        shutil.rmtree(config.run_dir / "checkpoints", ignore_errors=True)
    pipeline = create_pipeline(config, enable_cache=not fresh, push=push)
    summary = _run(config, pipeline, run_id, observer)
    summary.is_experiment = not push
    if not summary.fit:  # The run ended earlier, for a reason that is reported.
        return summary
    events = config.events
    summary.warnings += events.columns_without_effect(config.columns_of_tasks)
    if events.min_rating is not None and not summary.num_below_min_rating:
        summary.warnings.append(
            f"`events.min_rating: {events.min_rating:g}` has no effect: no event has a lower value "
            f"of `events.rating: {events.rating}`"
        )
    return summary


def refresh_index(config: PipelineConfig, run_id: str, observer: Observer) -> RunSummary:
    """Embed, index and push the current catalogue with the last pushed model; see `run`.

    Raises:
        ConfigError: The configuration has no catalogue, or a file in it is missing.
        IngestError: The input files cannot be read.
    """
    summary = _run(config, create_refresh_pipeline(config), run_id, observer)
    # Without a cause, the failure is that of the resolver, which found no blessed model.
    if summary.failure and summary.failure.__cause__ is None and not summary.blessed:
        summary.failure = ComponentFailedError(
            BLESSED_MODEL,
            "a pushed model is needed to embed the catalogue, but none has been pushed yet, or "
            "its artifacts were removed. Run the whole pipeline first: `two-tower run`",
        )
    return summary


def run_single_component(
    config: PipelineConfig, name: str, run_id: str, wait_s: float = 0.0
) -> ComponentOutcome:
    """Run one component, for orchestrators that run each component in its own process.

    The upstream components must have succeeded with the same run ID. If another process holds the
    run lock, wait for at most `wait_s` seconds.

    Raises:
        RunInProgressError: Another process holds the run lock.
        ConfigError: A file in the configuration is missing.
        IngestError: The input files cannot be read.
        UnknownComponentError: See `run_component`.
        ComponentFailedError: See `run_component`.
    """
    with run_lock(config.run_dir, wait_s):
        is_ingestion = name == INGESTION
        ingest = None if is_ingestion else ingestion_of_run(config, run_id)
        target = Target(config, ingest, reads_input=is_ingestion)
        try:
            return run_component(create_pipeline(config, target=target), name, run_id)
        except ComponentFailedError:
            log.exception("the run ended at %s", name)
            raise


def _run(config: PipelineConfig, pipeline: Pipeline, run_id: str, observer: Observer) -> RunSummary:
    summary = RunSummary(config.name, run_id, config.serving_dir)
    outcomes: dict[str, ComponentOutcome] = {}
    with contextlib.ExitStack() as stack:
        try:
            for outcome in run_components(pipeline, run_id, observer.component_started):
                outcomes[outcome.name] = outcome
                observer.component_finished(outcome)
                if outcome.name == "Trainer" and outcome.state == "complete":
                    # The server of ServingValidator needs several seconds to import TensorFlow. It
                    # does so while other components run.
                    stack.enter_context(standby_server())
        except ComponentFailedError as failure:
            log.exception("the run ended at %s", failure.component)
            summary.failure = failure
    summary.fill(outcomes)
    if summary.tuning:
        summary.tuned_config = str(write_tuned_config(config, summary.tuning["best"]))
    return summary
