"""RetrievalEvaluator: exact metrics beside simple baselines, and the gate they feed."""

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, standard_artifacts

from components.retrieval_evaluator.executor import Executor
from components.retrieval_evaluator.spec import (
    BLESSING_KEY,
    CONFIG_KEY,
    EVALUATION_KEY,
    EXAMPLES_KEY,
    LAST_BLESSED_KEY,
    LAST_BLESSING_KEY,
    MODEL_KEY,
    EvaluatorConfig,
    RetrievalEvaluatorSpec,
)


class RetrievalEvaluator(base_component.BaseComponent):
    """Measures a two-tower model over the full catalogue and blesses it, or does not.

    ```python
    evaluator = RetrievalEvaluator(
        examples=example_gen.outputs["examples"],
        model=trainer.outputs["model"],
        config=EvaluatorConfig(spec=spec, evaluation=EvaluationConfig(), code_hash=""),
    )
    ```

    Against the last blessed model, too:

    ```python
    evaluator = RetrievalEvaluator(
        ...,
        last_blessed_model=resolver.outputs["model"],
        last_blessing=resolver.outputs["model_blessing"],
    )
    ```

    The blessing, or else the model itself, has a property that says what was held out of it: where
    that model may have been trained on what it is now asked, the report says so.

    Outputs:
        evaluation: `evaluation.json` with the metrics by contender and the gate's checks, and
            `cases.parquet` with the ranks of each held-out event.
        blessing: A ModelBlessing that Pusher and the resolver for the last blessed model
            understand; `NOT_BLESSED` lists the thresholds that were missed.
    """

    SPEC_CLASS = RetrievalEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: channel.BaseChannel,
        model: channel.BaseChannel,
        config: EvaluatorConfig,
        last_blessed_model: channel.BaseChannel | None = None,
        last_blessing: channel.BaseChannel | None = None,
    ) -> None:
        channels = {
            EXAMPLES_KEY: examples,
            MODEL_KEY: model,
            EVALUATION_KEY: channel.Channel(type=standard_artifacts.ModelEvaluation),
            BLESSING_KEY: channel.Channel(type=standard_artifacts.ModelBlessing),
        }
        if last_blessed_model is not None:
            channels[LAST_BLESSED_KEY] = last_blessed_model
        if last_blessing is not None:
            channels[LAST_BLESSING_KEY] = last_blessing
        super().__init__(
            RetrievalEvaluatorSpec(**channels, **{CONFIG_KEY: config.model_dump_json()})
        )
