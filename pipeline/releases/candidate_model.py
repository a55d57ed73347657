"""The retrieval model of a run, which is built for inspection if the run did not get that far."""

import tempfile
from pathlib import Path

import apache_beam as beam
from tfx.utils import path_utils

from components.artifacts import RANKING_PROPERTY
from components.candidate_embedder.embed import embed_candidates
from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.build import build_retrieval_model
from models.input.raw_examples import split_files
from models.towers.saved_towers import SavedTowers
from pipeline.config.project import PipelineConfig
from pipeline.errors import ReleaseError
from pipeline.runs.history import RunRecord
from pipeline.runs.metadata import open_store
from pipeline.runs.results import live_outputs


def unpushed_model(config: PipelineConfig, record: RunRecord, folder: Path) -> str:
    """Return the path of the model of a run, which is built in `folder` if the run has none.

    Raises:
        ReleaseError: The run has trained no model, or its artifacts are gone.
    """
    outputs = live_outputs(config, open_store(config), record.run_id)
    if (built := outputs.get(("IndexBuilder", "retrieval_model"))) is not None:
        return str(path_utils.serving_model_path(built.uri))
    model, examples = (
        outputs.get(key) for key in (("Trainer", "model"), ("TimelineExampleGen", "examples"))
    )
    if model is None or examples is None:
        raise ReleaseError(
            f"run {record.run_id} must have trained a model, but ended before that or was cleaned"
            f"{f': {record.problem}' if record.problem else ''}"
        )
    if not folder.exists():
        blessing = outputs.get(("RetrievalEvaluator", "blessing"))
        of_blessing = {} if blessing is None else blessing.custom_properties
        ranked = RANKING_PROPERTY not in of_blessing or of_blessing[RANKING_PROPERTY].int_value
        _build(config, str(model.uri), str(examples.uri), str(folder), ranked=bool(ranked))
    return str(folder)


def _build(config: PipelineConfig, model: str, examples: str, folder: str, *, ranked: bool) -> None:
    """Embed the catalogue and build an exact index, which needs no gate."""
    towers = path_utils.serving_model_path(model)
    with tempfile.TemporaryDirectory(prefix="candidate_model_") as scratch:
        embed_candidates(
            towers,
            config.spec,
            split_files(examples, "candidates"),
            scratch,
            lambda: beam.Pipeline(argv=list(config.beam.pipeline_args)),
        )
        build_retrieval_model(
            SavedTowers(towers, config.spec),
            EmbeddingFiles(scratch, config.spec),
            split_files(examples, config.evaluation.split),
            config.spec,
            config.index.model_copy(update={"backend": "exact"}),
            config.serving.model_name,
            identity=model,
            directory=folder,
            return_fields=config.serving.return_fields,
            ranked=ranked,
        )
