"""Reading and writing of configuration files, with errors that name the setting."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from components.files import write_text
from models.features.spec import ColumnsConfig
from pipeline.config.project import PipelineConfig
from pipeline.config.yaml_text import read_yaml, write_yaml
from pipeline.errors import ConfigError, did_you_mean, reason_of

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
        known = sorted(path.name for path in given.parent.glob("*.y*ml"))
        raise ConfigError(
            f"there is no configuration file {given}{did_you_mean(given.name, known)} YAML files "
            f"in {given.parent}: {', '.join(known) or 'none'}"
        )
    folders = (Path.cwd() / "configs", CONFIGS_DIR)
    for folder in folders:
        if (folder / f"{name_or_path}.yaml").is_file():
            return folder / f"{name_or_path}.yaml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    known += sorted(path.name for path in Path.cwd().glob("*.y*ml"))
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
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {reason_of(error)}") from error
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
    training = content.get("training")
    if isinstance(training, dict) and "event_weights" in training:
        raise ConfigError(
            f"{path}: `training.event_weights` is now `events.types`, or `events.rating_weights` "
            "for ratings, which have an effect on the evaluation too"
        )
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
        return PipelineConfig.model_validate_json(json.dumps(content, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError("\n  ".join([f"{source}:", *_explain(error)])) from error
    except ValueError as error:
        raise ConfigError(
            f"{source}: no anchor must contain an alias of itself: {error}"
        ) from error


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
    write_text(path, write_yaml(content))
    return path


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
        target[last] = read_yaml(value)
    except ValueError as error:
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
    return write_yaml(translated)


def _explain(error: ValidationError) -> list[str]:
    """Return a line per wrong setting: the key, its value and the allowed values."""
    lines: dict[str, str] = {}
    for detail in error.errors():
        location, fields, field = _locate([str(part) for part in detail["loc"]])
        key, message = ".".join(location), detail["msg"][0].lower() + detail["msg"][1:]
        if detail["type"].startswith("bool_"):
            message = "must be true or false"
        about = f" ({field.description.rstrip('.')})" if field and field.description else ""
        if detail["type"] == "extra_forbidden":
            known = [name for name in fields if name != "root"]
            hint = did_you_mean(location[-1], known)
            lines[key] = f"unknown key `{key}`{hint} Known here: {', '.join(known)}"
        elif detail["type"] == "missing":
            lines[key] = f"`{key}` is missing{about}"
        elif detail["type"] == "value_error":
            text = str(detail["ctx"]["error"])
            # Checks of a whole section name the settings themselves.
            lines[key] = text if not key or f"`{key}" in text else f"`{key}`: {text}"
        elif key in lines:  # Another type that the setting may have.
            lines[key] = lines[key].replace(", got ", f", or {message}, got ", 1)
        else:
            lines[key] = f"`{key}`: {message}, got {detail['input']!r}{about}"
    return list(lines.values())


def _locate(
    location: Sequence[str],
) -> tuple[list[str], Mapping[str, FieldInfo], FieldInfo | None]:
    """Return the keys of a setting, the settings next to it by key, and its field, if known.

    Between them, pydantic's locations have a name for each member of a union of types.
    """
    keys: list[str] = []
    kind: Any = PipelineConfig
    fields: dict[str, FieldInfo] = {}
    for part in location:
        kind, *others = _members(kind)
        if others:
            kind = next((member for member in (kind, *others) if _fields(member)), None)
            continue
        if fields := _fields(kind):
            kind = fields[part].annotation if part in fields else None
        else:  # Each key of a mapping, and each index of a tuple, has the same type.
            kind = next((arg for arg in reversed(get_args(kind)) if arg is not Ellipsis), None)
        keys.append(part)
    return keys, fields, fields.get(keys[-1]) if keys else None


def _members(kind: Any) -> list[Any]:
    """Return the members of a union of types except None, or the type itself."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) not in (Union, UnionType):
        return [kind]
    return [member for arg in get_args(kind) if arg is not NoneType for member in _members(arg)]


def _fields(section: Any) -> dict[str, FieldInfo]:
    if not (isinstance(section, type) and issubclass(section, BaseModel)):
        return {}
    return {field.alias or name: field for name, field in section.model_fields.items()}
