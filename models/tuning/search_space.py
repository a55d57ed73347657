"""The search space: its validation, and the configuration of a trial."""

import json
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError

from models.config import ModelConfig, RangeConfig, TrainingConfig, TuningConfig
from models.settings import Settings

_SECTIONS: dict[str, type[Settings]] = {"model": ModelConfig, "training": TrainingConfig}
_NOT_SEARCHED = {
    "model.query_id_embedding": "the query IDs of held-out timelines have no embedding",
    "training.checkpoint_every_s": "it does not change the model",
    "training.seed": "no seed is better than another",
    "training.strategy": "it does not change the model",
    "training.validation_fraction": "`tuning.holdout_fraction` replaces it",
    "training.warm_start": "trials start from random weights",
}
# Prefix of the values that KerasTuner adds to those of the space.
_INTERNAL_PREFIX = "tuner/"


def check_space(tuning: TuningConfig, model: ModelConfig, training: TrainingConfig) -> None:
    """Check that each value of the space is valid if all other settings stay as configured.

    Values can still be invalid in combination. Such a trial fails during the search, without ending
    it.

    Raises:
        ValueError: A setting cannot be searched, or a value is invalid.
    """
    problems = [
        problem
        for name, choices in tuning.space.items()
        for problem in _problems(name, choices, {"model": model, "training": training})
    ]
    encoders = [model.history_encoder, *_listed(tuning, "model.history_encoder")]
    if tuning.enabled and "none" in encoders:
        problems.append(
            "`tuning` needs a `model.history_encoder` other than none, because trials are measured "
            "on held-out timelines, whose query IDs have no embedding"
        )
    if problems:
        raise ValueError("; ".join(problems))


def is_integer(name: str) -> bool:
    """Return True if a setting of the space is an integer."""
    section, _, key = name.partition(".")
    return int in _types(_SECTIONS[section].model_fields[key].annotation)


def encode(values: Sequence[Any]) -> list[int | float | str]:
    """Convert choices to types that KerasTuner supports: numbers of one type, or JSON strings."""
    if all(_is_number(value) for value in values):
        whole = all(isinstance(value, int) for value in values)
        return [value if whole else float(value) for value in values]
    return [json.dumps(value) for value in values]


def decode(name: str, value: Any, tuning: TuningConfig) -> Any:
    """Convert a value that KerasTuner chose to a value of the configuration."""
    choices = tuning.space[name]
    if isinstance(choices, RangeConfig) or all(_is_number(choice) for choice in choices):
        return value
    return json.loads(value)


def chosen_values(values: Mapping[str, Any], tuning: TuningConfig) -> dict[str, Any]:
    """Return a trial's values by setting, without those that KerasTuner adds."""
    return {
        name: decode(name, value, tuning)
        for name, value in values.items()
        if not name.startswith(_INTERNAL_PREFIX)
    }


def apply(
    values: Mapping[str, Any], model: ModelConfig, training: TrainingConfig
) -> tuple[ModelConfig, TrainingConfig]:
    """Return both sections with the settings in `values`, such as `model.dimension`, replaced.

    Raises:
        ValueError: The values are not valid together.
    """
    sections: dict[str, Any] = {
        "model": model.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
    }
    for name, value in values.items():
        section, _, key = name.partition(".")
        sections[section][key] = value
    return ModelConfig.model_validate(sections["model"]), TrainingConfig.model_validate(
        sections["training"]
    )


def _problems(
    name: str, choices: Sequence[Any] | RangeConfig, sections: Mapping[str, Settings]
) -> list[str]:
    setting = f"`tuning.space.{name}`"
    section, _, key = name.partition(".")
    if section not in _SECTIONS or key not in _SECTIONS[section].model_fields:
        known = [
            f"{part}.{field}" for part, kind in _SECTIONS.items() for field in kind.model_fields
        ]
        searched = ", ".join(field for field in known if field not in _NOT_SEARCHED)
        return [f"{setting} is not a searchable setting; these are: {searched}"]
    if name in _NOT_SEARCHED:
        return [f"{setting} cannot be searched: {_NOT_SEARCHED[name]}"]
    values = choices
    if isinstance(choices, RangeConfig):
        allowed = _types(_SECTIONS[section].model_fields[key].annotation)
        if not {int, float} & allowed:
            return [f"{setting} is not a number; list its values instead of giving min and max"]
        values = [choices.min, choices.max]
        if int in allowed:
            if not all(value.is_integer() for value in values):
                return [
                    f"{setting} must have integer limits, got {choices.min:g} to {choices.max:g}"
                ]
            values = [int(value) for value in values]
    return [
        f"{setting}: {problem}"
        for value in values
        if (problem := _problem(sections[section], key, value)) is not None
    ]


def _problem(section: Settings, key: str, value: Any) -> str | None:
    content = {**section.model_dump(mode="json"), key: value}
    try:
        # Strict, from JSON: the same validation as for the configuration file.
        type(section).model_validate_json(json.dumps(content), strict=True)
    except (ValidationError, TypeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        return f"{reason[0].lower()}{reason[1:]}, got {value!r}"
    return None


def _listed(tuning: TuningConfig, name: str) -> list[Any]:
    choices = tuning.space.get(name, ())
    return [] if isinstance(choices, RangeConfig) else list(choices)


def _types(annotation: Any) -> set[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return set(get_args(annotation))
    return {annotation}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
