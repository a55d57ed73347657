"""What only a run can tell: where the data lies, and which span of it is read."""

from components.interactions.config import DataConfig, IngestConfig
from components.interactions.source_columns import SOURCES
from components.interactions.source_query import query_of


def at_run_time(
    config: IngestConfig, data_directory: str | None = None, span: str | None = None
) -> IngestConfig:
    """Returns the settings with what a run was given.

    Args:
        config: As the pipeline was made with.
        data_directory: Path or URI that relative patterns start from; None: they stay.
        span: Becomes `data.spans.last`; None: that stays.

    Raises:
        ValidationError: The span is not possible.
    """
    data = config.data.model_dump()
    if data_directory is not None:
        for source in SOURCES:
            pattern = data[source]
            if pattern is None or query_of(pattern) is not None:
                continue
            if "://" not in pattern and not pattern.startswith("/"):
                data[source] = f"{data_directory.rstrip('/')}/{pattern}"
    if span is not None:
        data["spans"]["last"] = int(span) if span.isdecimal() else span
    return config.model_copy(update={"data": DataConfig.model_validate(data)})
