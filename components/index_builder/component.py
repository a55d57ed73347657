"""IndexBuilder: the embedded catalogue, indexed, behind the served signatures."""

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, standard_artifacts

from components.index_builder.executor import Executor
from components.index_builder.spec import (
    CONFIG_KEY,
    EMBEDDINGS_KEY,
    EXAMPLES_KEY,
    MODEL_BLESSING_KEY,
    MODEL_KEY,
    REPORT_KEY,
    RETRIEVAL_MODEL_KEY,
    IndexBuilderConfig,
    IndexBuilderSpec,
    IndexReportArtifact,
)


class IndexBuilder(base_component.BaseComponent):
    """Builds the retrieval SavedModel of a blessed model.

    ```python
    index_builder = IndexBuilder(
        examples=example_gen.outputs["examples"],
        embeddings=embedder.outputs["embeddings"],
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        config=IndexBuilderConfig(
            spec=spec, index=IndexConfig(), query_split="eval", model_name="retrieval", code_hash=""
        ),
    )
    pusher = Pusher(model=index_builder.outputs["retrieval_model"], ...)
    ```

    Outputs:
        retrieval_model: A Model under `Format-Serving`, which Pusher takes.
        report: `index_report.json`: backend, settings, recall against exact search.
    """

    SPEC_CLASS = IndexBuilderSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: channel.BaseChannel,
        embeddings: channel.BaseChannel,
        model: channel.BaseChannel,
        model_blessing: channel.BaseChannel,
        config: IndexBuilderConfig,
    ) -> None:
        channels = {
            EXAMPLES_KEY: examples,
            EMBEDDINGS_KEY: embeddings,
            MODEL_KEY: model,
            MODEL_BLESSING_KEY: model_blessing,
            RETRIEVAL_MODEL_KEY: channel.Channel(type=standard_artifacts.Model),
            REPORT_KEY: channel.Channel(type=IndexReportArtifact),
        }
        super().__init__(IndexBuilderSpec(**channels, **{CONFIG_KEY: config.model_dump_json()}))
