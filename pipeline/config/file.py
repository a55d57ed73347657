"""Reading and writing of configuration files, with errors that name the setting."""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from components.files import write_text
from models.features.spec import ColumnsConfig
from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError, did_you_mean

CONFIGS_DIR = Path(__file__).resolve().parents[2] / "configs"
# Former names of settings, and their current ones.
_MOVED = {
    "data.interactions": "events.files",
    "data.timestamp_unit": "events.timestamp_unit",
    "data.min_rating": "events.min_rating",
    "data.duplicate_events": "events.duplicates",
    "data.max_events": "events.max_timeline",
    "data.spans": "events.spans",
    "data.candidates": "candidates.file",
    "data.queries": "queries.file",
    "data.format": "ingest.format",
    "data.delimiter": "ingest.delimiter",
    "data.bad_rows": "ingest.bad_rows",
    "data.bigquery": "ingest.bigquery",
    "features.candidate": "candidates.features",
    "features.query": "queries.features",
    **{f"columns.{name}": f"events.{name}" for name in ColumnsConfig.model_fields},
}


def find(name_or_path: str) -> Path:
    """Return the path of a configuration: a name in `configs/`, or a path that ends in .yaml.

    Raises:
        ConfigError: The file does not exist.
    """
    given = Path(name_or_path)
    if given.suffix in {".yaml", ".yml"}:
        if given.is_file():
            return given
        raise ConfigError(f"there is no configuration file {given}")
    folders = (Path.cwd() / "configs", CONFIGS_DIR)
    for folder in folders:
        if (folder / f"{name_or_path}.yaml").is_file():
            return folder / f"{name_or_path}.yaml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise ConfigError(
        f"there is no configuration {name_or_path!r}{did_you_mean(name_or_path, known)} Known: "
        f"{', '.join(known) or 'none'}. A path must end in .yaml"
    )


def load(name_or_path: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Load and validate a configuration.

    Relative paths in it are relative to the parent of `configs/`. If the file is in a folder with
    another name, they are relative to this folder. `overrides` are settings as `section.key=value`,
    where the value is YAML.

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
    if content.keys() & {"data", "columns", "features"}:
        raise ConfigError(
            f"{path}: the sections data, columns and features are now grouped as events, "
            f"candidates, queries and ingest. Replace them with:\n\n{_translation(content)}"
        )
    for override in overrides:
        _apply(content, override)
    if "root" in content:
        raise ConfigError(
            f"{path}: `root` is not a setting; the location of the file decides where paths start"
        )
    return parse({"name": path.stem, **content, "root": root_of(path)}, source=str(path))


def root_of(file: Path) -> Path:
    """Return the folder that the relative paths in a configuration file start from."""
    return file.parent.parent if file.parent.name == "configs" else file.parent


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


def write_tuned_config(config: PipelineConfig, values: Mapping[str, Any]) -> Path:
    """Write `tuned/NAME.yaml` in the run folder: the settings with the best values of a search.

    Its paths are absolute, so the file can be moved. The name of the project stays the same, so
    `two-tower run --config FILE` continues the project with these values, which have names such as
    `model.dimension`.
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
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return path


def _as_text(value: object) -> str:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return f"{value.isoformat()}T00:00:00"
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value)


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes section.key=value, got {override!r}")
    for old, new in _MOVED.items():
        if f"{key}.".startswith(f"{old}."):
            raise ConfigError(f"--set {override}: `{key}` is now `{new}{key[len(old) :]}`")
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


def _translation(content: Mapping[str, Any]) -> str:
    """Return the YAML that replaces the former sections."""
    translated: dict[str, Any] = {}
    for old, new in _MOVED.items():
        section, key = old.split(".")
        values = content.get(section)
        if isinstance(values, Mapping) and key in values:
            new_section, new_key = new.split(".")
            translated.setdefault(new_section, {})[new_key] = values[key]
    return yaml.safe_dump(translated, sort_keys=False, allow_unicode=True)


def _explain(detail: Mapping[str, Any]) -> str:
    """Return a one-line message for a pydantic error: the key, its value and the allowed values."""
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        known = [key for key in _fields_at(location[:-1]) if key != "root"]
        hint = did_you_mean(location[-1], known)
        return f"unknown key `{key}`{hint} Known here: {', '.join(known)}"
    if detail["type"] == "missing":
        return f"`{key}` is missing{_describe(location)}"
    if detail["type"] == "value_error":
        return (f"`{key}`: " if key else "") + str(detail["ctx"]["error"])
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"`{key}`: {message}, got {detail['input']!r}{_describe(location)}"


def _fields_at(location: Sequence[str]) -> dict[str, FieldInfo]:
    """Return the settings by key at a location such as `queries.features.age`; empty if unknown."""
    section: Any = PipelineConfig
    for part in location:
        if fields := _fields(section):
            section = fields[part].annotation if part in fields else None
        else:  # Mapping[str, X]: every key has the type X.
            section = (get_args(section) or [None])[-1]
    return _fields(section)


def _fields(section: Any) -> dict[str, FieldInfo]:
    if not (isinstance(section, type) and issubclass(section, BaseModel)):
        return {}
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _describe(location: Sequence[str]) -> str:
    field = _fields_at(location[:-1]).get(location[-1])
    return f" ({field.description.rstrip('.')})" if field and field.description else ""
