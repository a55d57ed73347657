"""Unpacks the artifacts, evaluates, writes the report and the blessing."""

import json
import os
from dataclasses import replace
from typing import Any

from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut, why_seen
from components.retrieval_evaluator.case_results import CASES_FILE, write_cases
from components.retrieval_evaluator.comparison import LAST_BLESSED
from components.retrieval_evaluator.evaluate import evaluate
from components.retrieval_evaluator.gate import Decision
from components.retrieval_evaluator.report import EVALUATION_FILE, judge, make_report
from components.retrieval_evaluator.spec import (
    BLESSING_KEY,
    CONFIG_KEY,
    EVALUATION_KEY,
    EXAMPLES_KEY,
    LAST_BLESSED_KEY,
    LAST_BLESSING_KEY,
    MODEL_KEY,
    EvaluatorConfig,
)
from models.missing_model import is_no_model
from models.towers.saved_towers import SavedTowers


class Executor(base_executor.BaseExecutor):
    """Runs RetrievalEvaluator."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluates the model and writes the blessing.

        Args:
            input_dict: `examples` (splits train, candidates and the evaluated one), `model`,
                and `last_blessed_model` and `last_blessing` where there are such.
            output_dict: `evaluation`, `blessing`.
            exec_properties: `evaluator_config`, an `EvaluatorConfig` as JSON.
        """
        config = EvaluatorConfig.model_validate_json(exec_properties[CONFIG_KEY])
        examples = artifact_utils.get_single_instance(input_dict[EXAMPLES_KEY])
        model = artifact_utils.get_single_instance(input_dict[MODEL_KEY])
        towers = SavedTowers(path_utils.serving_model_path(model.uri), config.spec)
        before = None
        if config.evaluation.min_lift_over_last > 0:
            before = _last_blessed(input_dict.get(LAST_BLESSED_KEY))
        evaluation, answers = evaluate(
            towers,
            examples.uri,
            config.spec,
            config.evaluation,
            before,
        )
        held_out = examples.get_string_custom_property(HELD_OUT_PROPERTY)
        if LAST_BLESSED in evaluation.metrics:
            advantage = why_seen(HeldOut.parse(held_out), _held_out_of_last(input_dict))
            evaluation = replace(evaluation, last_blessed_advantage=advantage)
        decision = judge(evaluation, config.evaluation)
        report = make_report(evaluation, decision, config.evaluation)
        output = artifact_utils.get_single_instance(output_dict[EVALUATION_KEY])
        fileio.makedirs(output.uri)
        write_cases(answers, os.path.join(output.uri, CASES_FILE))
        io_utils.write_string_file(
            os.path.join(output.uri, EVALUATION_FILE), json.dumps(report, indent=2)
        )
        blessing = artifact_utils.get_single_instance(output_dict[BLESSING_KEY])
        _bless(blessing, model, decision)
        blessing.set_string_custom_property(HELD_OUT_PROPERTY, held_out)


def _last_blessed(artifacts: list[types.Artifact] | None) -> str | None:
    if not artifacts:
        return None
    path: str = path_utils.serving_model_path(artifacts[0].uri)
    return None if is_no_model(path) else path


def _held_out_of_last(input_dict: dict[str, list[types.Artifact]]) -> HeldOut | None:
    """What was held out of the last blessed model, from its blessing or, on a cluster, itself."""
    for key in (LAST_BLESSING_KEY, LAST_BLESSED_KEY):
        for artifact in input_dict.get(key, ()):
            if text := artifact.get_string_custom_property(HELD_OUT_PROPERTY):
                return HeldOut.parse(text)
    return None


def _bless(blessing: types.Artifact, model: types.Artifact, decision: Decision) -> None:
    name, value = (
        (constants.BLESSED_FILE_NAME, constants.BLESSED_VALUE)
        if decision.blessed
        else (constants.NOT_BLESSED_FILE_NAME, constants.NOT_BLESSED_VALUE)
    )
    fileio.makedirs(blessing.uri)
    lines = "".join(f"{refusal}\n" for refusal in decision.refusals)
    io_utils.write_string_file(os.path.join(blessing.uri, name), lines)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)
    blessing.set_string_custom_property(
        constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri
    )
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
