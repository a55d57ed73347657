"""IndexBuilder: build an index of the embedded catalogue and export the served model."""

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing
from tfx.utils import path_utils

from components import files
from components.artifacts import (
    CandidateEmbeddings,
    IndexReport,
    require_model_blessing,
    serves_ranking,
)
from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.build import build_retrieval_model
from components.index_builder.config import IndexConfig
from components.index_builder.export import identity_of
from components.index_builder.index_report import write_report
from components.index_builder.known_histories import HistorySource
from models.features.spec import FeatureSpec
from models.input.raw_examples import split_files
from models.settings import Settings
from models.towers.saved_towers import SavedTowers


class IndexBuilderConfig(Settings):
    """Configuration of IndexBuilder.

    Attributes:
        query_split: Split whose timelines provide the sample queries.
        model_name: Name under which the model is served, for the warm-up requests.
        return_fields, known_histories, known_histories_max_mb: See `ServingConfig`.
        splits: Splits with timelines, in order, for `known_histories`.
    """

    spec: FeatureSpec
    index: IndexConfig
    query_split: str
    model_name: str
    return_fields: tuple[str, ...] = ()
    known_histories: int = 0
    known_histories_max_mb: int = 0
    splits: tuple[str, ...] = ()


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
        config=IndexBuilderConfig(...).model_dump_json(),
    )
    ```

    Outputs:
        retrieval_model: Model with the SavedModel in `Format-Serving`, as Pusher expects it.
        report: `index_report.json` with the backend, its settings and its recall against exact
            search.

    Raises:
        NotBlessedError: The model is not blessed. Later components do not run.
        IndexRefusedError: The index fails its gate, or the known histories are too large.
        EmbeddingFilesError: `embeddings` is incomplete.
        ChangedFeaturesError: The model was trained with other features.
        ValueError: The split `query_split` has no queries.
    """
    require_model_blessing(model_blessing)
    settings = IndexBuilderConfig.model_validate_json(config)
    towers_directory = path_utils.serving_model_path(model.uri)
    catalogue = EmbeddingFiles(embeddings.uri, settings.spec)
    code, histories = config + code_hash, None
    if settings.known_histories:
        by_split = [split_files(examples.uri, split) for split in settings.splits]
        histories = HistorySource(
            list(zip(*by_split, strict=True)),
            settings.known_histories,
            settings.known_histories_max_mb,
        )
        folders = (f"{examples.uri}/Split-{split}" for split in settings.splits)
        code += "".join(map(files.digest_of_folder, folders))
    built = build_retrieval_model(
        SavedTowers(towers_directory, settings.spec),
        catalogue,
        split_files(examples.uri, settings.query_split),
        settings.spec,
        settings.index,
        settings.model_name,
        identity_of(towers_directory, catalogue, settings.spec, code),
        path_utils.serving_model_dir(retrieval_model.uri),
        return_fields=settings.return_fields,
        ranked=serves_ranking(model_blessing),
        histories=histories,
    )
    write_report(built, report.uri)
