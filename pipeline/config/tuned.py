"""Creation of a configuration with the best values of a search."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.project import PipelineConfig


def write_tuned_config(config: PipelineConfig, values: Mapping[str, Any]) -> Path:
    """Write a copy of the configuration with the best values and without the search.

    Its paths are absolute, so the file can be moved. The name of the project stays the same, so
    `two-tower run --config FILE` continues the project with these values.

    Args:
        config: The configuration of the search.
        values: The best values, by names such as `model.dimension`.

    Returns:
        The path of the new file, `tuned/NAME.yaml` in the project's run folder.
    """
    content = config.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"root"})
    content["name"] = config.name
    for name, value in values.items():
        section, _, key = name.partition(".")
        content.setdefault(section, {})[key] = value
    content["tuning"] = {**content["tuning"], "enabled": False}
    paths = config.ingestion.data
    content["events"]["files"] = paths.interactions
    for name, file in (("candidates", paths.candidates), ("queries", paths.queries)):
        if file is not None:
            content[name]["file"] = file
    content["schema"] = {"file": config.schema_file}
    content["runs"] = config.resolve(config.runs)
    if config.serving.directory is not None:
        content["serving"]["directory"] = config.serving_dir
    path = config.run_dir / "tuned" / f"{config.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_suffix(".incoming")
    incoming.write_text(
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    os.replace(incoming, path)
    return path
