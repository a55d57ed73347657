"""Which catalogue is in service already, so that a run does not take an older one."""

from collections.abc import Sequence

from components.interactions.config import has_spans

from pipeline.config.project import PipelineConfig
from pipeline.runs.metadata import has_metadata, open_store
from pipeline.runs.history import RunHistory, RunRecord


def refreshed_through(config: PipelineConfig) -> int | None:
    """Returns the newest span of the catalogue that was brought into service.

    An index refresh reads the newest catalogue, a run one that is not newer than its window:
    without this, the run after a refresh would bring back the catalogue of before.

    Returns:
        Its number; None: there was no such catalogue, or the run is of a fixed span.
    """
    if not _takes_newest(config) or not has_metadata(config):
        return None
    last, refreshes = RunHistory(open_store(config), config.name).since_last_complete()
    return newest_catalogue(config, [*refreshes, *([] if last is None else [last])])


def newest_catalogue(config: PipelineConfig, records: Sequence[RunRecord]) -> int | None:
    """Returns the newest span of the catalogue that any of the runs has read, as above."""
    if not _takes_newest(config):
        return None
    return max((int(record.catalogue) for record in records if record.catalogue), default=None)


def _takes_newest(config: PipelineConfig) -> bool:
    catalogue = config.data.candidates
    return catalogue is not None and has_spans(catalogue) and config.data.spans.last == "newest"
