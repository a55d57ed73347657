"""RetrievalEvaluator: compute exact metrics of a model and of baselines, and apply the gate."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace

from tfx.components.evaluator import constants
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import Artifact
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, ModelEvaluation
from tfx.utils import path_utils

from components import files
from components.artifacts import RANKING_PROPERTY, serves_ranking
from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut, why_seen
from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.evaluate import EVALUATION_FILE, evaluate
from components.retrieval_evaluator.event_results import CASES_FILE, write_cases
from components.retrieval_evaluator.gate import Decision, decide
from components.retrieval_evaluator.rankers import LAST_BLESSED
from models.features.spec import EventWeights, FeatureSpec
from models.missing_model import is_missing_model
from models.settings import Settings
from models.towers.saved_towers import SavedTowers


class EvaluatorConfig(Settings):
    """The configuration of RetrievalEvaluator; `left_out` is that of `evaluate`."""

    spec: FeatureSpec
    evaluation: EvaluationConfig
    weights: EventWeights = EventWeights()
    left_out: Mapping[str, str] = {}


@component
def RetrievalEvaluator(
    examples: InputArtifact[Examples],
    model: InputArtifact[Model],
    evaluation: OutputArtifact[ModelEvaluation],
    blessing: OutputArtifact[ModelBlessing],
    config: Parameter[str],
    last_blessed_model: InputArtifact[Model] = None,
    last_blessing: InputArtifact[ModelBlessing] = None,
) -> None:
    """Measure a two-tower model over the full catalogue, and bless it if it passes the gate.

    ```python
    evaluator = RetrievalEvaluator(
        examples=example_gen.outputs["examples"],
        model=trainer.outputs["model"],
        last_blessed_model=resolver.outputs["model"],  # optional
        last_blessing=resolver.outputs["model_blessing"],  # optional
        config=EvaluatorConfig(spec=spec, evaluation=EvaluationConfig()).model_dump_json(),
    )
    ```

    The report states whether the last blessed model may have been trained on events that are held
    out now. The events held out from its training are recorded in a property of its blessing or, on
    a cluster, of the model artifact.

    Outputs:
        evaluation: `evaluation.json` with the metrics and the gate's checks, `cases.parquet` with
            the ranks of each held-out event, and `examples.json` and `items.parquet` with samples.
        blessing: A ModelBlessing that Pusher and the resolvers understand. Its file
            `NOT_BLESSED` explains a refusal.
    """
    settings = EvaluatorConfig.model_validate_json(config)
    held_out = examples.get_string_custom_property(HELD_OUT_PROPERTY)
    last_towers = None
    if last_blessed_model is not None and settings.evaluation.min_lift_over_last > 0:
        path = path_utils.serving_model_path(last_blessed_model.uri)
        last_towers = None if is_missing_model(path) else path
    result, events, samples = evaluate(
        SavedTowers(path_utils.serving_model_path(model.uri), settings.spec),
        examples.uri,
        settings.spec,
        settings.evaluation,
        last_towers,
        weights=settings.weights,
        last_is_ranked=last_blessing is None or serves_ranking(last_blessing),
        left_out=settings.left_out,
    )
    if LAST_BLESSED in result.metrics:
        records = [
            found.get_string_custom_property(HELD_OUT_PROPERTY)
            for found in (last_blessing, last_blessed_model)
            if found is not None
        ]
        before = next(filter(None, records), "")
        advantage = why_seen(HeldOut.parse(held_out), HeldOut.parse(before))
        result = replace(result, last_blessed_advantage=advantage)
    decision = decide(result, settings.evaluation)
    report = result.report(settings.evaluation, decision.to_json())
    write_cases(events, os.path.join(evaluation.uri, CASES_FILE))
    samples.write(evaluation.uri)
    files.write_text(
        os.path.join(evaluation.uri, EVALUATION_FILE), json.dumps(report, indent=2, allow_nan=False)
    )
    _bless(blessing, model, decision)
    if result.ranking is not None:
        blessing.set_int_custom_property(RANKING_PROPERTY, int(result.ranking.served))
    blessing.set_string_custom_property(HELD_OUT_PROPERTY, held_out)


def _bless(blessing: Artifact, model: Artifact, decision: Decision) -> None:
    name, value = (
        (constants.BLESSED_FILE_NAME, constants.BLESSED_VALUE)
        if decision.blessed
        else (constants.NOT_BLESSED_FILE_NAME, constants.NOT_BLESSED_VALUE)
    )
    lines = "".join(f"{refusal}\n" for refusal in decision.refusals)
    files.write_text(os.path.join(blessing.uri, name), lines)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)
    blessing.set_string_custom_property(
        constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri
    )
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
