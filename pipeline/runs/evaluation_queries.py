"""Real queries of the newest run, for whoever wants to ask a served model what users would."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.config.project import PipelineConfig
from serving.clients.query import Query


class NoExamplesError(Exception):
    """No run has written Examples yet; a run helps."""


def newest_examples(config: PipelineConfig) -> Path:
    """Returns the Examples of the newest run that ingested its data.

    Raises:
        NoExamplesError: There is none.
    """
    # Folders are numbered by execution and appear whole.
    artifacts = config.run_dir / "artifacts" / "TimelineExampleGen" / "examples"
    written = [
        path
        for path in (artifacts.iterdir() if artifacts.is_dir() else ())
        if path.name.isdecimal() and any(path.glob(f"Split-{config.evaluation.split}/*"))
    ]
    if not written:
        raise NoExamplesError(f"{artifacts} holds no Examples yet")
    return max(written, key=lambda path: int(path.name))


def evaluation_queries(config: PipelineConfig, examples: Path, count: int) -> Sequence[Query]:
    """Returns queries of the split that is evaluated, in the order of its files.

    Args:
        config: The use.
        examples: The Examples.
        count: How many queries at most.
    """
    # TensorFlow takes seconds to import: not before it is known that there is something to read.
    from components.serving_validator.sample_queries import Questions
    from models.input.raw_examples import read_timelines, split_files

    files = split_files(str(examples), config.evaluation.split)
    batch = next(read_timelines(files, config.spec, batch_size=count))
    return Questions.from_timelines(batch, config.spec).queries
