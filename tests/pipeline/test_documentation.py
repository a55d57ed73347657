from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from models.features import FeatureConfig
from pipeline.config import PipelineConfig

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text("utf-8")


def settings(section: type[BaseModel]) -> Iterator[tuple[str, str]]:
    for name, field in section.model_fields.items():
        key = field.alias or name
        if (section, key) != (PipelineConfig, "root"):
            yield section.__name__, key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation)


@pytest.mark.parametrize(("section", "key"), [*settings(PipelineConfig), *settings(FeatureConfig)])
def test_every_setting_is_documented(section: str, key: str) -> None:
    assert f"| `{key}` |" in TEXT, f"docs/configuration.md lacks {section}.{key}"
