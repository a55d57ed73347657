"""Loading and validation of configuration files, with errors that name the setting."""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.did_you_mean import did_you_mean
from pipeline.config.old_form import new_name, translation
from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError

CONFIGS_DIR = Path(__file__).resolve().parents[2] / "configs"


def find(name_or_path: str) -> Path:
    """Return the path of a configuration file.

    Args:
        name_or_path: A path that ends in .yaml or .yml, or a name in `configs/`.

    Raises:
        ConfigError: The file does not exist.
    """
    given = Path(name_or_path)
    if given.suffix in {".yaml", ".yml"}:
        if given.is_file():
            return given
        raise ConfigError(f"there is no configuration file {given}")
    for folder in (Path.cwd() / "configs", CONFIGS_DIR):
        if (folder / f"{name_or_path}.yaml").is_file():
            return folder / f"{name_or_path}.yaml"
    known = sorted(path.stem for path in CONFIGS_DIR.glob("*.yaml"))
    raise ConfigError(
        f"there is no configuration {name_or_path!r}{did_you_mean(name_or_path, known)}; known: "
        f"{', '.join(known) or 'none'}. A path must end in .yaml"
    )


def load(name_or_path: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Load and validate a configuration.

    Relative paths in it are relative to the parent of `configs/`. If the file is in a folder with
    another name, they are relative to this folder.

    Args:
        name_or_path: A name in `configs/` such as `movielens_100k`, or a path that ends in .yaml.
        overrides: Settings as `section.key=value`, where the value is YAML.

    Raises:
        ConfigError: The file is missing or unreadable, or a setting is unknown, has a wrong type or
            contradicts another one. The message names the key, its value and the allowed values.
    """
    path = find(name_or_path).resolve()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} must hold sections such as `events:`, got {type(content).__name__}"
        )
    if (replacement := translation(content)) is not None:
        raise ConfigError(
            f"{path}: the sections data, columns and features are now grouped as events, "
            f"candidates, queries and ingest. Replace them with:\n\n{replacement}"
        )
    for override in overrides:
        _apply(content, override)
    if "root" in content:
        raise ConfigError(
            f"{path}: `root` is not a setting; the location of the file decides where paths start"
        )
    root = path.parent.parent if path.parent.name == "configs" else path.parent
    return parse({"name": path.stem, **content, "root": root}, source=str(path))


def parse(content: Mapping[str, Any], source: str) -> PipelineConfig:
    """Validate the content of a configuration file; error messages refer to it as `source`."""
    try:
        # Strict validation of JSON rejects "3" for 3 and 1 for true. Unlike strict validation of
        # Python objects, it accepts a list for a tuple and a string for a date.
        return PipelineConfig.model_validate_json(
            json.dumps(content, default=_as_text), strict=True
        )
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors()]
        raise ConfigError(f"{source}:\n  " + "\n  ".join(lines)) from error


def _as_text(value: object) -> str:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return f"{value.isoformat()}T00:00:00"
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value)


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes section.key=value, got {override!r}")
    if (renamed := new_name(key)) is not None:
        raise ConfigError(f"--set {override}: `{key}` is now `{renamed}`")
    *sections, last = key.split(".")
    target = content
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override}: {section!r} is a value, not a section")
    try:
        target[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not YAML: {error}") from error


def _explain(detail: Mapping[str, Any]) -> str:
    """Return a one-line message for a pydantic error: the key, its value and the allowed values."""
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        known = _keys_at(PipelineConfig, location[:-1])
        hint = did_you_mean(location[-1], known)
        return f"unknown key `{key}`{hint}; known here: {', '.join(known)}"
    if detail["type"] == "missing":
        return f"`{key}` is missing{_describe(location)}"
    if detail["type"] == "value_error":
        return (f"`{key}`: " if key else "") + str(detail["ctx"]["error"])
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"`{key}`: {message}, got {detail['input']!r}{_describe(location)}"


def _keys_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    section = _section(model, location)
    if section is None:
        return []
    return [
        field.alias or name
        for name, field in section.model_fields.items()
        if not (section is PipelineConfig and name == "root")
    ]


def _section(model: type[BaseModel], location: Sequence[str]) -> type[BaseModel] | None:
    """Return the settings class at a location such as `queries.features.age`, or None."""
    section: Any = model
    for part in location:
        if isinstance(section, type) and issubclass(section, BaseModel):
            fields = {field.alias or name: field for name, field in section.model_fields.items()}
            if part not in fields:
                return None
            section = fields[part].annotation
        else:  # Mapping[str, X]: every key has the type X.
            arguments = get_args(section)
            if not arguments:
                return None
            section = arguments[-1]
    return section if isinstance(section, type) and issubclass(section, BaseModel) else None


def _describe(location: Sequence[str]) -> str:
    section = _section(PipelineConfig, location[:-1])
    if section is None:
        return ""
    for name, field in section.model_fields.items():
        if (field.alias or name) == location[-1] and field.description:
            return f" ({field.description.rstrip('.')})"
    return ""
