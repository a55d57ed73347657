"""Reference of all settings: Markdown tables for the documentation, JSON Schema for editors."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.config.project import PipelineConfig

_HEAD = "setting | default | meaning\n---|---|---"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file, for completion and checks in editors."""
    schema = PipelineConfig.model_json_schema(by_alias=True)
    del schema["properties"]["root"]
    # `name` defaults to the file name.
    schema["required"] = [name for name in schema["required"] if name not in ("root", "name")]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def markdown() -> str:
    """Return a Markdown table of the settings of each section, with their descriptions."""
    schema = json_schema()
    top, sections, shown = [_HEAD], [], dict[str, str]()
    for key, setting in schema["properties"].items():
        if section := _class_of(setting):
            summary = schema["$defs"][section]["description"].partition("\n")[0]
            tables = _tables(schema["$defs"], section, key, shown)
            sections += [f"## `{key}`", summary, *tables]
        else:
            default = "the file's name" if key == "name" else _default(setting)
            top.append(f"`{key}` | {default} | {setting['description']}")
    return "\n\n".join(["## Top level", "\n".join(top), *sections]) + "\n"


def _tables(
    classes: Mapping[str, Any], section: str, prefix: str, shown: dict[str, str]
) -> Iterator[str]:
    """Yield the tables of a section and its subsections; a class in `shown` is not repeated."""
    shown[section] = prefix
    required = classes[section].get("required", ())
    rows, nested = [_HEAD], list[str]()
    for name, setting in classes[section]["properties"].items():
        key = f"{prefix}.{name}"
        if text := setting.get("description"):
            rows.append(f"`{key}` | {_default(setting, name in required)} | {text}")
        if (inner := _class_of(setting)) is None:
            continue
        inner_key = f"{key}.NAME" if "additionalProperties" in setting else key
        if inner in shown:
            nested.append(f"`{inner_key}` has the settings of `{shown[inner]}`.")
        else:
            nested += _tables(classes, inner, inner_key, shown)
    yield "\n".join(rows)
    yield from nested


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the schema of a setting and, recursively, its parts."""
    if isinstance(schema, Mapping):
        yield schema
        schema = [part for key, part in schema.items() if key != "default"]
    if isinstance(schema, list):
        for part in schema:
            yield from _parts(part)


def _class_of(setting: Any) -> str | None:
    """Return the name of the settings class in the schema of a setting, or None."""
    return next((p["$ref"].rpartition("/")[2] for p in _parts(setting) if "$ref" in p), None)


def _default(setting: Mapping[str, Any], is_required: bool = False) -> str:
    value = setting.get("default", {})
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    text = "**required**" if is_required else text if value is None else f"`{text}`"
    choices = [c for p in _parts(setting) for c in [*p.get("enum", ()), p.get("const", value)]]
    others = ", ".join(f"`{choice}`" for choice in choices if choice != value)
    if not others:
        return text
    return f"{text}: {others}" if is_required else f"{text} or {others}"
