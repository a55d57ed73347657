"""BatchRecommender: recommend candidates for all known queries."""

import apache_beam as beam
from tfx.dsl.component.experimental.annotations import (
    BeamComponentParameter,
    InputArtifact,
    OutputArtifact,
    Parameter,
)
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, Model, PushedModel
from tfx.utils import path_utils

from components.artifacts import Recommendations
from components.batch_recommender.answers import Request
from components.batch_recommender.config import BatchConfig
from components.batch_recommender.recommend import recommend_to_files
from components.beam_results import pipelines_like
from models.features.spec import FeatureSpec
from models.settings import Settings


class BatchRecommenderConfig(Settings):
    """Configuration of BatchRecommender; `splits` have timelines, in order."""

    spec: FeatureSpec
    batch: BatchConfig
    index_k: int
    splits: tuple[str, ...]


@component(use_beam=True)
def BatchRecommender(
    examples: InputArtifact[Examples],
    model: InputArtifact[Model],
    pushed_model: InputArtifact[PushedModel],
    recommendations: OutputArtifact[Recommendations],
    config: Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Answer all queries that have events with the pushed model.

    ```python
    recommender = BatchRecommender(
        examples=example_gen.outputs["examples"],
        model=index_builder.outputs["retrieval_model"],
        pushed_model=pusher.outputs["pushed_model"],
        config=BatchRecommenderConfig(...).model_dump_json(),
    )
    ```

    Outputs:
        recommendations: Parquet files with the recommended candidates of each query.

    Raises:
        BatchError: The model lacks a filter, or returns fewer candidates.
    """
    settings = BatchRecommenderConfig.model_validate_json(config)
    version = pushed_model.get_string_custom_property("pushed_version")
    recommend_to_files(
        path_utils.serving_model_path(model.uri),
        examples.uri,
        settings.splits,
        Request(
            spec=settings.spec,
            k=settings.batch.k,
            index_k=settings.index_k,
            exclude_seen=settings.batch.exclude_seen,
            filters=settings.batch.filters,
            model_version=int(version) if version.isdecimal() else None,
        ),
        recommendations.uri,
        pipelines_like(beam_pipeline),
    )
