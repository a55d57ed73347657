"""Real queries from the newest Examples, for requests to a served model."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.config.project import PipelineConfig
from pipeline.errors import NoExamplesError
from serving.clients.query import Query


def newest_examples(config: PipelineConfig) -> Path:
    """Return the folder of the newest Examples.

    Raises:
        NoExamplesError: No run has written Examples with the evaluated split.
    """
    # Folders are named by execution ID, and ingestion writes them atomically.
    artifacts = config.run_dir / "artifacts" / "TimelineExampleGen" / "examples"
    written = [
        path
        for path in (artifacts.iterdir() if artifacts.is_dir() else ())
        if path.name.isdecimal() and any(path.glob(f"Split-{config.evaluation.split}/*"))
    ]
    if not written:
        raise NoExamplesError(
            f"{artifacts} holds no Examples yet; run `two-tower run --config {config.name}` first"
        )
    return max(written, key=lambda path: int(path.name))


def evaluation_queries(config: PipelineConfig, examples: Path, count: int) -> Sequence[Query]:
    """Return the first `count` queries of the evaluated split, or all if there are fewer."""
    # Imported here because TensorFlow takes seconds to import.
    from components.serving_validator.expected_answers import SampleQueries
    from models.input.raw_examples import read_timelines, split_files

    files = split_files(str(examples), config.evaluation.split)
    batch = next(read_timelines(files, config.spec, batch_size=count))
    return SampleQueries.from_timelines(batch, config.spec).queries
