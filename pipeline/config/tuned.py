"""The best values of a search as a configuration that a person can keep."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.project import PipelineConfig


def write_tuned_config(config: PipelineConfig, values: Mapping[str, Any]) -> Path:
    """Writes what the configuration says, with the best values in their places.

    It is of the same use: `two-tower run --config` with it fits with these values and without a
    search. Paths are absolute, so it may be moved.

    Args:
        config: The use that was searched.
        values: The best ones, by names such as `model.dimension`.

    Returns:
        `tuned/NAME.yaml` in the folder of the use's runs.
    """
    content = config.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"root"})
    content["name"] = config.name
    for name, value in values.items():
        section, _, key = name.partition(".")
        content.setdefault(section, {})[key] = value
    content["tuning"] = {**content["tuning"], "enabled": False}
    for name in ("interactions", "candidates", "queries"):
        if content["data"].get(name) is not None:
            content["data"][name] = config.resolve(content["data"][name])
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
