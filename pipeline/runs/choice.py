"""What a run that is many processes chose in the first of them, found in ML Metadata."""

from components.interactions.config import IngestConfig

from pipeline.config.project import PipelineConfig
from pipeline.runs.metadata import has_metadata, open_store
from pipeline.runs.history import NODE_TYPE, RUN_TYPE, executions_of

# The component that reads the input files.
INGESTING = "TimelineExampleGen"


def ingested_choice(config: PipelineConfig, run_id: str) -> IngestConfig | None:
    """Returns what a run's ingestion was told to read: the files of which spans.

    Components after it must not choose anew: a span that has come in between would stand in the
    measure of drift, and not in what is trained on.

    Args:
        config: The use.
        run_id: Of the run.

    Returns:
        The settings with the spans that were chosen; None where the run has ingested nothing yet.
    """
    if not has_metadata(config):
        return None
    store = open_store(config)
    of_run = executions_of(store, RUN_TYPE, run_id)
    tries = executions_of(store, NODE_TYPE, f"{config.name}.{INGESTING}").keys() & of_run.keys()
    if not tries:
        return None
    told = of_run[max(tries)].custom_properties["config"].string_value
    return IngestConfig.model_validate_json(told)
