from tfx import types
from tfx.types import standard_artifacts

from components.blessed_models.resolvers import LastBlessedModelStrategy


def model(number: int) -> types.Artifact:
    artifact = standard_artifacts.Model()
    artifact.id = number
    return artifact


def blessing(number: int, *, blessed: bool = True) -> types.Artifact:
    artifact = standard_artifacts.ModelBlessing()
    artifact.set_int_custom_property("blessed", int(blessed))
    artifact.set_int_custom_property("current_model_id", number)
    return artifact


def resolve(current: int, models: list[int], blessings: list[types.Artifact]) -> list[int]:
    found = LastBlessedModelStrategy().resolve_artifacts(
        None,
        {
            "current": [model(current)],
            "model": [model(number) for number in models],
            "model_blessing": blessings,
        },
    )
    assert len(found["model"]) == len(found["model_blessing"])
    return [artifact.id for artifact in found["model"]]


def test_the_first_model_has_none():
    assert resolve(5, [5], []) == []


def test_the_newest_blessed_model_is_found():
    models, blessings = [3, 7, 9, 12], [blessing(3), blessing(7), blessing(9, blessed=False)]
    assert resolve(12, models, blessings) == [7]


def test_a_model_is_not_held_against_itself():
    assert resolve(7, [3, 7], [blessing(3), blessing(7)]) == [3]
    assert resolve(3, [3], [blessing(3)]) == []


def test_an_older_model_that_comes_back_is_held_against_the_newer_one():
    assert resolve(3, [3, 7], [blessing(3), blessing(7)]) == [7]
