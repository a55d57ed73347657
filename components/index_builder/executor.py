"""Unpacks the artifacts, asks for the blessing, builds, writes the report."""

from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils

from components.blessings import require_model_blessing
from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.build import build_retrieval_model
from components.index_builder.identity import identity_of
from components.index_builder.index_report import write_report
from components.index_builder.spec import (
    CONFIG_KEY,
    EMBEDDINGS_KEY,
    EXAMPLES_KEY,
    MODEL_BLESSING_KEY,
    MODEL_KEY,
    REPORT_KEY,
    RETRIEVAL_MODEL_KEY,
    IndexBuilderConfig,
)
from models.input.raw_examples import split_files
from models.towers.saved_towers import SavedTowers


class Executor(base_executor.BaseExecutor):
    """Runs IndexBuilder."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Builds the retrieval model.

        Args:
            input_dict: `examples` (the split with the queries), `embeddings`, `model`,
                `model_blessing`.
            output_dict: `retrieval_model`, `report`.
            exec_properties: `index_builder_config`, an `IndexBuilderConfig` as JSON.

        Raises:
            NotBlessedError: The model is not blessed: nothing after this runs.
            IndexRefusedError: The index misses a threshold of its gate.
            EmbeddingFilesError: `embeddings` is incomplete.
            ChangedFeaturesError: The model was fitted with other features.
        """
        config = IndexBuilderConfig.model_validate_json(exec_properties[CONFIG_KEY])
        examples = artifact_utils.get_single_instance(input_dict[EXAMPLES_KEY])
        model = artifact_utils.get_single_instance(input_dict[MODEL_KEY])
        blessing = artifact_utils.get_single_instance(input_dict[MODEL_BLESSING_KEY])
        require_model_blessing(blessing)
        output = artifact_utils.get_single_instance(output_dict[RETRIEVAL_MODEL_KEY])
        directory = path_utils.serving_model_dir(output.uri)
        towers_directory = path_utils.serving_model_path(model.uri)
        embeddings = EmbeddingFiles(
            artifact_utils.get_single_uri(input_dict[EMBEDDINGS_KEY]), config.spec
        )
        report = build_retrieval_model(
            SavedTowers(towers_directory, config.spec),
            embeddings,
            split_files(examples.uri, config.query_split),
            config.spec,
            config.index,
            config.model_name,
            identity_of(towers_directory, embeddings, config.spec, exec_properties[CONFIG_KEY]),
            directory,
        )
        write_report(report, artifact_utils.get_single_uri(output_dict[REPORT_KEY]))
