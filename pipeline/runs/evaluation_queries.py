"""Real queries of the newest run, to send to a served model."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.config.project import PipelineConfig
from pipeline.errors import NoExamplesError
from serving.clients.query import Query


def newest_examples(config: PipelineConfig) -> Path:
    """Return the Examples of the newest run that ingested data.

    Raises:
        NoExamplesError: There are none.
    """
    # Folders are numbered by execution and appear complete or not at all.
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
    """Return at most `count` queries of the evaluated split, in the order of its files."""
    # TensorFlow takes seconds to import: first make sure that there is something to read.
    from components.serving_validator.expected_answers import SampleQueries
    from models.input.raw_examples import read_timelines, split_files

    files = split_files(str(examples), config.evaluation.split)
    batch = next(read_timelines(files, config.spec, batch_size=count))
    return SampleQueries.from_timelines(batch, config.spec).queries
