"""Unpacks the artifacts, asks for the blessing, embeds."""

from typing import Any

from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils

from components.blessings import require_model_blessing
from components.candidate_embedder.embed import embed_candidates
from components.candidate_embedder.spec import (
    CONFIG_KEY,
    EMBEDDINGS_KEY,
    EXAMPLES_KEY,
    MODEL_BLESSING_KEY,
    MODEL_KEY,
    CandidateEmbedderConfig,
)
from models.input.raw_examples import split_files


class Executor(base_beam_executor.BaseBeamExecutor):
    """Runs CandidateEmbedder."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Embeds the catalogue.

        Args:
            input_dict: `examples` (the split candidates), `model`, `model_blessing`.
            output_dict: `embeddings`.
            exec_properties: `candidate_embedder_config`, a `CandidateEmbedderConfig` as JSON.

        Raises:
            NotBlessedError: The model is not blessed: nothing after this runs.
            EmbeddingError: The catalogue is empty, or a vector is not finite.
            ChangedFeaturesError: The model was fitted with other features.
        """
        config = CandidateEmbedderConfig.model_validate_json(exec_properties[CONFIG_KEY])
        model = artifact_utils.get_single_instance(input_dict[MODEL_KEY])
        require_model_blessing(artifact_utils.get_single_instance(input_dict[MODEL_BLESSING_KEY]))
        embed_candidates(
            path_utils.serving_model_path(model.uri),
            config.spec,
            split_files(artifact_utils.get_single_uri(input_dict[EXAMPLES_KEY]), "candidates"),
            artifact_utils.get_single_uri(output_dict[EMBEDDINGS_KEY]),
            self._make_beam_pipeline,
        )
