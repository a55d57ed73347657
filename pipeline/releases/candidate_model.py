"""The retrieval model of a run, which is built for inspection if the run did not get that far."""

import os
import tempfile

import apache_beam as beam
from tfx.utils import path_utils

from components import files
from components.artifacts import RANKING_PROPERTY
from components.candidate_embedder.embed import embed_candidates
from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.build import build_retrieval_model
from models.input.raw_examples import split_files
from models.towers.saved_towers import SavedTowers
from pipeline.config.project import PipelineConfig
from pipeline.errors import ReleaseError
from pipeline.releases.answering_model import CANDIDATES_FOLDER, AnsweringModel, pushed_versions
from pipeline.runs.history import find_run
from pipeline.runs.metadata import open_store
from pipeline.runs.results import live_outputs


def model_of_run(config: PipelineConfig, run: str) -> AnsweringModel:
    """Return the model of a run; see `answering_model`."""
    record = find_run(config, run)
    version = record.summary.get("pushed_version")
    if version in pushed_versions(config.serving_dir):
        reason = f"of run {record.run_id}"
        return AnsweringModel(f"{config.serving_dir}/{version}", version, reason, record.run_id)
    reason = f"model of run {record.run_id}, which was not pushed ({record.state})"
    outputs = live_outputs(config, open_store(config), record.run_id)
    if (built := outputs.get(("IndexBuilder", "retrieval_model"))) is not None:
        return AnsweringModel(path_utils.serving_model_path(built.uri), None, reason, record.run_id)
    model, examples = (
        outputs.get(key) for key in (("Trainer", "model"), ("TimelineExampleGen", "examples"))
    )
    if model is None or examples is None:
        raise ReleaseError(
            f"run {record.run_id} must have trained a model, but ended before that or was cleaned"
            f"{f': {record.problem}' if record.problem else ''}"
        )
    folder = os.path.join(config.run_dir, CANDIDATES_FOLDER, record.run_id)
    if not files.exists(folder):
        blessing = outputs.get(("RetrievalEvaluator", "blessing"))
        of_blessing = {} if blessing is None else blessing.custom_properties
        ranked = RANKING_PROPERTY not in of_blessing or of_blessing[RANKING_PROPERTY].int_value
        _build(config, str(model.uri), str(examples.uri), folder, ranked=bool(ranked))
    return AnsweringModel(folder, None, reason, record.run_id)


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
