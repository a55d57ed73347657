"""CandidateEmbedder: the catalogue as vectors, for the index and for external vector stores."""

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import channel

from components.candidate_embedder.executor import Executor
from components.candidate_embedder.spec import (
    CONFIG_KEY,
    EMBEDDINGS_KEY,
    EXAMPLES_KEY,
    MODEL_BLESSING_KEY,
    MODEL_KEY,
    CandidateEmbedderConfig,
    CandidateEmbedderSpec,
    CandidateEmbeddings,
)


class CandidateEmbedder(base_beam_component.BaseBeamComponent):
    """Embeds the `candidates` split with a blessed model, block by block in Beam.

    ```python
    embedder = CandidateEmbedder(
        examples=example_gen.outputs["examples"],
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        config=CandidateEmbedderConfig(spec=spec, code_hash=""),
    )
    index_builder = IndexBuilder(embeddings=embedder.outputs["embeddings"], ...)
    ```

    Outputs:
        embeddings: `embeddings-*.parquet`: each candidate once, with its vector and features.
    """

    SPEC_CLASS = CandidateEmbedderSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: channel.BaseChannel,
        model: channel.BaseChannel,
        model_blessing: channel.BaseChannel,
        config: CandidateEmbedderConfig,
    ) -> None:
        channels = {
            EXAMPLES_KEY: examples,
            MODEL_KEY: model,
            MODEL_BLESSING_KEY: model_blessing,
            EMBEDDINGS_KEY: channel.Channel(type=CandidateEmbeddings),
        }
        super().__init__(
            CandidateEmbedderSpec(**channels, **{CONFIG_KEY: config.model_dump_json()})
        )
