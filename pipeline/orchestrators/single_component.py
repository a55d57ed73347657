"""One component of a run, in a process of its own: how an orchestrator runs a pipeline."""

from pipeline.config.project import PipelineConfig
from pipeline.definition import create_pipeline
from pipeline.orchestrators.local.runner import ComponentOutcome, run_component
from pipeline.orchestrators.target import LocalSite
from pipeline.runs.choice import INGESTING, ingested_choice
from pipeline.runs.lock import run_lock
from pipeline.runs.run import NEVER_CACHED


def run_single_component(config: PipelineConfig, name: str, run_id: str) -> ComponentOutcome:
    """Runs a component; those before it have been run under the same id.

    Args:
        config: The use.
        name: Of the component.
        run_id: Of the run in ML Metadata, by which components find each other's outputs.

    Raises:
        UnknownComponentError: There is no such component.
        ComponentFailedError: The component failed, or its inputs are missing.
        RunInProgressError: A run of this configuration is under way.
        ConfigError: A file that the configuration names is missing.
        IngestError: The input files cannot be read.
    """
    with run_lock(config.run_dir):
        ingests = name == INGESTING
        chosen = None if ingests else ingested_choice(config, run_id)
        pipeline = create_pipeline(config, site=LocalSite(config, chosen, ingests=ingests))
        return run_component(pipeline, name, run_id, NEVER_CACHED)
