from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact

from components.artifacts import require_infra_blessing, require_model_blessing
from components.errors import NotBlessedError
from tests.builders import artifact, blessing


@pytest.mark.parametrize(
    ("require", "kind", "gate"),
    [
        (require_model_blessing, standard_artifacts.ModelBlessing, "the evaluation gate"),
        (require_infra_blessing, standard_artifacts.InfraBlessing, "the serving gate"),
    ],
    ids=["evaluation", "serving"],
)
def test_only_a_blessed_model_passes_and_a_refusal_names_the_gate_and_its_reasons(
    require: Callable[[Artifact], None], kind: type[Artifact], gate: str, tmp_path: Path
) -> None:
    require(blessing(kind, tmp_path / "blessed"))
    refused = blessing(kind, tmp_path / "refused", blessed=False, why="first\nsecond\n")
    with pytest.raises(NotBlessedError, match=rf"{gate} refused the model: first\s+second"):
        require(refused)
    with pytest.raises(NotBlessedError, match=f"{gate}.*has no blessing"):
        require(artifact(kind, tmp_path))
