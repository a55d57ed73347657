"""IndexBuilder: build an index of the embedded catalogue and export the served model."""

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing
from tfx.utils import path_utils

from components.artifacts import CandidateEmbeddings, IndexReport, require_model_blessing
from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.build import build_retrieval_model
from components.index_builder.config import IndexConfig
from components.index_builder.identity import identity_of
from components.index_builder.index_report import write_report
from models.features.spec import FeatureSpec
from models.input.raw_examples import split_files
from models.settings import Settings
from models.towers.saved_towers import SavedTowers


class IndexBuilderConfig(Settings):
    """The configuration of IndexBuilder.

    Attributes:
        spec: Columns and features.
        index: Backend, tuning and gate of the index.
        query_split: The split whose timelines are the sample queries.
        model_name: The name under which the model is served, for warm-up requests.
    """

    spec: FeatureSpec
    index: IndexConfig
    query_split: str
    model_name: str


@component
def IndexBuilder(
    examples: InputArtifact[Examples],
    embeddings: InputArtifact[CandidateEmbeddings],
    model: InputArtifact[Model],
    model_blessing: InputArtifact[ModelBlessing],
    retrieval_model: OutputArtifact[Model],
    report: OutputArtifact[IndexReport],
    config: Parameter[str],
    code_hash: Parameter[str] = "",
) -> None:
    """Build the retrieval SavedModel of a blessed model.

    ```python
    index_builder = IndexBuilder(
        examples=example_gen.outputs["examples"],
        embeddings=embedder.outputs["embeddings"],
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        config=IndexBuilderConfig(
            spec=spec, index=IndexConfig(), query_split="eval", model_name="retrieval"
        ).model_dump_json(),
    )
    ```

    Args:
        examples: Examples with the sample queries.
        embeddings: The embedded catalogue.
        model: The fitted towers.
        model_blessing: The verdict of the evaluation gate.
        retrieval_model: A Model under `Format-Serving`, which Pusher takes.
        report: `index_report.json`: backend, settings, recall compared with exact search.
        config: An `IndexBuilderConfig`.
        code_hash: Becomes part of the model's identity.

    Raises:
        NotBlessedError: The model is not blessed. Later components do not run.
        IndexRefusedError: The index misses a threshold of its gate.
        EmbeddingFilesError: `embeddings` is incomplete.
        ChangedFeaturesError: The model was fitted with other features.
    """
    require_model_blessing(model_blessing)
    settings = IndexBuilderConfig.model_validate_json(config)
    towers_directory = path_utils.serving_model_path(model.uri)
    files = EmbeddingFiles(embeddings.uri, settings.spec)
    built = build_retrieval_model(
        SavedTowers(towers_directory, settings.spec),
        files,
        split_files(examples.uri, settings.query_split),
        settings.spec,
        settings.index,
        settings.model_name,
        identity_of(towers_directory, files, settings.spec, config + code_hash),
        path_utils.serving_model_dir(retrieval_model.uri),
    )
    write_report(built, report.uri)
