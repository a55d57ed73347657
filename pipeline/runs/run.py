"""Local execution of the pipeline, an index refresh, or one component of a run."""

import contextlib
import logging
import shutil

from tfx.orchestration.pipeline import Pipeline

from pipeline.config.project import PipelineConfig
from pipeline.config.tuned import write_tuned_config
from pipeline.definition import BLESSED_MODEL, create_pipeline, create_refresh_pipeline
from pipeline.errors import ComponentFailedError
from pipeline.orchestrators.local.runner import (
    ComponentOutcome,
    ObservedLocalRunner,
    Observer,
    run_component,
)
from pipeline.orchestrators.local.target import LocalTarget
from pipeline.runs.earlier_runs import INGESTION, ingestion_of_run
from pipeline.runs.lock import run_lock
from pipeline.runs.summary import RunSummary
from serving.launcher import standby_server

log = logging.getLogger(__name__)

# Cache keys do not include the content of the serving directory. The Pusher itself checks whether
# the newest version already contains its model.
NEVER_CACHED = frozenset({"Pusher"})


def run(
    config: PipelineConfig, run_id: str, observer: Observer, *, fresh: bool = False
) -> RunSummary:
    """Run the pipeline until it ends or a component fails, and return a summary.

    The caller must hold the run lock.

    Args:
        config: The configuration of the project.
        run_id: ID of the run.
        observer: Object that is notified when a component starts and when it has succeeded.
        fresh: Whether to ignore the cache and remove the checkpoints of a killed run.

    Returns:
        The summary, whose `failure` is set if a component failed.

    Raises:
        ConfigError: A file in the configuration is missing.
        IngestError: The input files cannot be read.
    """
    if fresh:
        shutil.rmtree(config.run_dir / "checkpoints", ignore_errors=True)
    return _run(config, create_pipeline(config, enable_cache=not fresh), run_id, observer)


def refresh_index(config: PipelineConfig, run_id: str, observer: Observer) -> RunSummary:
    """Embed, index and push the current catalogue with the last blessed model.

    The caller must hold the run lock.

    Returns:
        The summary, whose `failure` is set if a component failed.

    Raises:
        ConfigError: The configuration has no catalogue, or a file in it is missing.
        IngestError: The input files cannot be read.
    """
    summary = _run(config, create_refresh_pipeline(config), run_id, observer)
    # Without a cause, the failure is that of the resolver, which found no blessed model.
    if summary.failure and summary.failure.__cause__ is None and not summary.blessed:
        summary.failure = ComponentFailedError(
            BLESSED_MODEL,
            "a blessed model is needed to embed the catalogue, but none has been blessed yet, or "
            "its artifacts were removed. Run the whole pipeline first: `two-tower run`",
        )
    return summary


def run_single_component(config: PipelineConfig, name: str, run_id: str) -> ComponentOutcome:
    """Run one component, for orchestrators that run each component in its own process.

    The upstream components must have succeeded with the same run ID.

    Raises:
        RunInProgressError: Another process holds the run lock.
        ConfigError: A file in the configuration is missing.
        IngestError: The input files cannot be read.
        UnknownComponentError: See `run_component`.
        ComponentFailedError: See `run_component`.
    """
    with run_lock(config.run_dir):
        is_ingestion = name == INGESTION
        ingest = None if is_ingestion else ingestion_of_run(config, run_id)
        target = LocalTarget(config, ingest, reads_input=is_ingestion)
        return run_component(create_pipeline(config, target=target), name, run_id, NEVER_CACHED)


def _run(config: PipelineConfig, pipeline: Pipeline, run_id: str, observer: Observer) -> RunSummary:
    summary = RunSummary(config.name, run_id, config.serving_dir)
    with contextlib.ExitStack() as stack:
        runner = ObservedLocalRunner(run_id, _ServerStarter(observer, stack), NEVER_CACHED)
        try:
            runner.run(pipeline)
        except ComponentFailedError as failure:
            log.exception("the run ended at %s", failure.component)
            summary.failure = failure
    summary.fill(runner.outcomes)
    if summary.tuning:
        summary.tuned_config = str(write_tuned_config(config, summary.tuning["best"]))
    return summary


class _ServerStarter:
    """Observer that starts the server of ServingValidator in advance, once a model is trained.

    The server needs several seconds to import TensorFlow. It does so while other components run.
    """

    def __init__(self, observer: Observer, stack: contextlib.ExitStack) -> None:
        self._observer = observer
        self._stack = stack
        self.component_started = observer.component_started

    def component_finished(self, outcome: ComponentOutcome) -> None:
        """Notify the wrapped observer, and start a standby server after a training."""
        self._observer.component_finished(outcome)
        if outcome.name == "Trainer" and outcome.state == "complete":
            self._stack.enter_context(standby_server())
