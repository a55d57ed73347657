import pytest
from tfx import types
from tfx.types import standard_artifacts

from components.blessed_models.resolvers import LastBlessedModelStrategy


def model(number: int) -> types.Artifact:
    artifact = standard_artifacts.Model()
    artifact.id = number
    return artifact


def blessing(number: int, blessed: bool) -> types.Artifact:
    artifact = standard_artifacts.ModelBlessing()
    artifact.set_int_custom_property("blessed", int(blessed))
    artifact.set_int_custom_property("current_model_id", number)
    return artifact


@pytest.mark.parametrize(
    ("current", "models", "blessings", "expected"),
    [
        pytest.param(5, [5], {}, [], id="a first model has none"),
        pytest.param(12, [3, 7, 9, 12], {3: True, 7: True, 9: False}, [7], id="the newest blessed"),
        pytest.param(7, [3, 7], {3: True, 7: True}, [3], id="not itself"),
        pytest.param(3, [3], {3: True}, [], id="not itself alone"),
        pytest.param(3, [3, 7], {3: True, 7: True}, [7], id="an older model comes back"),
    ],
)
def test_finds_the_last_blessed_model(
    current: int, models: list[int], blessings: dict[int, bool], expected: list[int]
) -> None:
    found = LastBlessedModelStrategy().resolve_artifacts(
        None,
        {
            "current": [model(current)],
            "model": [model(number) for number in models],
            "model_blessing": [blessing(*given) for given in blessings.items()],
        },
    )
    assert len(found["model"]) == len(found["model_blessing"])
    assert [artifact.id for artifact in found["model"]] == expected
