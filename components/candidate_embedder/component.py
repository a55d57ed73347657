"""CandidateEmbedder: embed the catalogue."""

import apache_beam as beam
from tfx.dsl.component.experimental.annotations import (
    BeamComponentParameter,
    InputArtifact,
    OutputArtifact,
    Parameter,
)
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing
from tfx.utils import path_utils

from components.artifacts import CandidateEmbeddings, require_model_blessing
from components.beam_results import pipelines_like
from components.candidate_embedder.embed import embed_candidates
from models.features.spec import FeatureSpec
from models.input.raw_examples import split_files


@component(use_beam=True)
def CandidateEmbedder(
    examples: InputArtifact[Examples],
    model: InputArtifact[Model],
    model_blessing: InputArtifact[ModelBlessing],
    embeddings: OutputArtifact[CandidateEmbeddings],
    config: Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Embed the split `candidates` with a blessed model, for the index and for vector stores.

    ```python
    embedder = CandidateEmbedder(
        examples=example_gen.outputs["examples"],
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        config=spec.model_dump_json(),
    )
    ```

    Outputs:
        embeddings: Parquet files with the vector and the features of each candidate.

    Raises:
        NotBlessedError: The model is not blessed. Later components do not run.
        EmbeddingError: The catalogue is empty, or a vector is not finite.
        ChangedFeaturesError: The model was fitted with other features.
    """
    require_model_blessing(model_blessing)
    embed_candidates(
        path_utils.serving_model_path(model.uri),
        FeatureSpec.model_validate_json(config),
        split_files(examples.uri, "candidates"),
        embeddings.uri,
        pipelines_like(beam_pipeline),
    )
