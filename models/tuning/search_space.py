"""The search space: its validation, and the configuration of a trial."""

import json
import types
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from models.config import ModelConfig, RangeConfig, TrainingConfig, TuningConfig
from models.ranking.config import RankingConfig
from models.settings import Settings

_SECTIONS: dict[str, type[Settings]] = {
    "model": ModelConfig,
    "training": TrainingConfig,
    "ranking": RankingConfig,
}
_OF_RANKER = "ranking."
_NOT_SEARCHED = {
    "model.query_id_embedding": "the query IDs of held-out timelines have no embedding",
    "training.checkpoint_every_s": "it does not change the model",
    "training.seed": "no seed is better than another",
    "training.strategy": "it does not change the model",
    "training.validation_fraction": "`tuning.holdout_fraction` replaces it",
    "training.warm_start": "trials start from random weights",
    "ranking.enabled": "trials of the ranker are not comparable with those of the retriever",
    "ranking.held_back_fraction": "all trials are measured on the same events",
    "ranking.max_queries": "all trials are measured on the same events",
    "ranking.successors": "all trials rank the same candidates of the retriever",
    "ranking.refit_retriever": "trials are measured before it",
    "ranking.tasks": "they decide what is served",
}
# Name in the space whose values are sets of settings, such as `{model.dimension: 32}`.
RECIPE = "recipe"
# Prefix of the values that KerasTuner adds to those of the space.
_INTERNAL_PREFIX = "tuner/"


def check_space(tuning: TuningConfig, configured: Settings) -> None:
    """Check that each value of the space is valid if all other settings stay as configured.

    Values can still be invalid in combination. Such a trial fails without ending the search.
    `configured` has the sections `model`, `training` and `ranking`.

    Raises:
        ValueError: A setting cannot be searched, or a value is invalid.
    """
    sections = {name: getattr(configured, name) for name in _SECTIONS}
    problems = [
        problem
        for name, choices in tuning.space.items()
        for problem in _problems(name, choices, sections)
    ]
    names = sorted(_settings_of(tuning))
    if searches_ranker(tuning):
        if not all(name.startswith(_OF_RANKER) for name in names):
            problems.append(
                "`tuning.space` must have settings of either the retriever or the ranker, but has "
                f"{', '.join(names)}; search without `ranking.` first, then search the ranker with "
                "the configuration that the first search writes"
            )
        elif tuning.enabled and not sections["ranking"].enabled:
            problems.append(
                f"`tuning.space.{names[0]}` needs a ranker; set `ranking.enabled: true`"
            )
    encoders = tuning.space.get("model.history_encoder", ())
    if (
        tuning.enabled
        and not searches_ranker(tuning)
        and (
            sections["model"].history_encoder == "none"
            or (not isinstance(encoders, RangeConfig) and "none" in encoders)
        )
    ):
        problems.append(
            "`tuning` needs a `model.history_encoder` other than none, because trials are measured "
            "on held-out timelines, whose query IDs have no embedding"
        )
    if problems:
        raise ValueError("; ".join(problems))


def searches_ranker(tuning: TuningConfig) -> bool:
    """Return True if the search is for settings of the ranker, with one retriever."""
    return any(name.startswith(_OF_RANKER) for name in _settings_of(tuning))


def is_integer(name: str) -> bool:
    """Return True if a setting of the space is an integer."""
    return int in _types(name)


def encode(values: Sequence[Any]) -> list[int | float | str]:
    """Convert choices to types that KerasTuner supports: numbers of one type, or JSON strings."""
    if _are_numbers(values):
        whole = all(isinstance(value, int) for value in values)
        return [value if whole else float(value) for value in values]
    return [json.dumps(value) for value in values]


def chosen_values(values: Mapping[str, Any], tuning: TuningConfig) -> dict[str, Any]:
    """Return a trial's values by setting, decoded and without those that KerasTuner adds.

    The settings of the chosen recipe are among them, unless the space has values of their own.
    """
    chosen = {
        name: value if _are_numbers(tuning.space[name]) else json.loads(value)
        for name, value in values.items()
        if not name.startswith(_INTERNAL_PREFIX)
    }
    return {**chosen.pop(RECIPE, {}), **chosen}


def apply(values: Mapping[str, Any], configured: Settings) -> dict[str, Settings]:
    """Return the sections with settings in `values`, such as `model.dimension`, which are replaced.

    Raises:
        ValueError: The values are not valid together.
    """
    changed: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        changed.setdefault(section, getattr(configured, section).model_dump())[key] = value
    return {section: _SECTIONS[section](**content) for section, content in changed.items()}


def _settings_of(tuning: TuningConfig) -> set[str]:
    """Return the settings that a space has values of, also in recipes."""
    recipes = tuning.space.get(RECIPE, ())
    found = set(tuning.space) - {RECIPE}
    for recipe in () if isinstance(recipes, RangeConfig) else recipes:
        found.update(recipe if isinstance(recipe, dict) else ())
    return found


def _problems(
    name: str, choices: Sequence[Any] | RangeConfig, sections: Mapping[str, Settings]
) -> list[str]:
    setting = f"`tuning.space.{name}`"
    values = choices
    if name == RECIPE:
        if isinstance(choices, RangeConfig) or not all(isinstance(each, dict) for each in choices):
            return [f"{setting} must list sets of settings, such as {{model.dimension: 32}}"]
        names = {key for recipe in choices for key in recipe}
    else:
        names = {name}
    if problems := [found for each in sorted(names) if (found := _unsearchable(each))]:
        return problems
    if isinstance(choices, RangeConfig):
        limits = choices.min, choices.max
        if not {int, float} & _types(name):
            return [f"{setting} is not a number; list its values instead of giving min and max"]
        if is_integer(name) and not all(limit.is_integer() for limit in limits):
            return [f"{setting} must have integer limits, got {limits[0]:g} to {limits[1]:g}"]
        values = [int(limit) if is_integer(name) else limit for limit in limits]
    for value in values:
        contents = {part: section.model_dump(mode="json") for part, section in sections.items()}
        changes = value if isinstance(value, dict) else {name: value}
        for key, of in changes.items():
            part, _, field = key.partition(".")
            contents[part][field] = of
        try:
            for part, content in contents.items():
                # Strict, from JSON: the same validation as for the configuration file.
                _SECTIONS[part].model_validate_json(json.dumps(content), strict=True)
        except (ValidationError, TypeError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            problems.append(f"{setting}: {reason[0].lower()}{reason[1:]}, got {value!r}")
    return problems


def _unsearchable(name: str) -> str | None:
    """Return the reason why a setting cannot be searched, if there is one."""
    known = [f"{part}.{key}" for part, kind in _SECTIONS.items() for key in kind.model_fields]
    if name not in known:
        searched = ", ".join(each for each in known if each not in _NOT_SEARCHED)
        return f"`tuning.space.{name}` is not a searchable setting; these are: {searched}"
    if name in _NOT_SEARCHED:
        return f"`tuning.space.{name}` cannot be searched: {_NOT_SEARCHED[name]}"
    return None


def _types(name: str) -> set[Any]:
    section, _, key = name.partition(".")
    annotation = _SECTIONS[section].model_fields[key].annotation
    return set(get_args(annotation)) if isinstance(annotation, types.UnionType) else {annotation}


def _are_numbers(choices: Sequence[Any] | RangeConfig) -> bool:
    return isinstance(choices, RangeConfig) or all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in choices
    )
