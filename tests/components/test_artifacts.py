from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tfx.types import artifact, standard_artifacts

from components.artifacts import (
    NotBlessedError,
    require_infra_blessing,
    require_model_blessing,
)

Require = Callable[[artifact.Artifact], None]

GATES = [
    pytest.param(
        require_model_blessing,
        standard_artifacts.ModelBlessing,
        ("BLESSED", "NOT_BLESSED"),
        "the evaluation gate",
        id="evaluation",
    ),
    pytest.param(
        require_infra_blessing,
        standard_artifacts.InfraBlessing,
        ("INFRA_BLESSED", "INFRA_NOT_BLESSED"),
        "the serving gate",
        id="serving",
    ),
]


def blessing_with(kind: type, folder: Path, file: str | None, value: int | None, text: str = ""):
    blessing = kind()
    blessing.uri = str(folder)
    if file is not None:
        (folder / file).write_text(text)
    if value is not None:
        blessing.set_int_custom_property("blessed", value)
        if kind is standard_artifacts.InfraBlessing:
            blessing.set_string_custom_property("blessing_status", str(value))
    return blessing


@pytest.mark.parametrize(("require", "kind", "names", "gate"), GATES)
def test_a_blessed_model_passes(
    require: Require, kind: type, names: tuple[str, str], gate: str, tmp_path: Path
):
    require(blessing_with(kind, tmp_path, names[0], 1))


@pytest.mark.parametrize(("require", "kind", "names", "gate"), GATES)
def test_a_refusal_names_the_gate_and_its_reasons(
    require: Require, kind: type, names: tuple[str, str], gate: str, tmp_path: Path
):
    blessing = blessing_with(kind, tmp_path, names[1], 0, "first reason\nsecond reason\n")
    with pytest.raises(NotBlessedError, match=rf"{gate}[^\n]*first reason\s+second reason"):
        require(blessing)


@pytest.mark.parametrize(("require", "kind", "names", "gate"), GATES)
def test_an_artifact_that_nobody_wrote_is_no_blessing(
    require: Require, kind: type, names: tuple[str, str], gate: str, tmp_path: Path
):
    with pytest.raises(NotBlessedError, match=f"{gate}.*has no blessing"):
        require(blessing_with(kind, tmp_path, None, None))
