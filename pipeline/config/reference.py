"""Reference of all settings: Markdown tables for the documentation, JSON Schema for editors."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

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
    top, sections, shown = [_HEAD], [], dict[type[BaseModel], str]()
    for name, field in PipelineConfig.model_fields.items():
        key = field.alias or name
        if nested := _section(field):
            summary = (nested.__doc__ or "").partition("\n")[0]
            sections += [f"## `{key}`", summary, *_tables(nested, key, shown)]
        elif name != "root":
            top.append(_row(key, field))
    return "\n\n".join(["## Top level", "\n".join(top), *sections]) + "\n"


def _tables(
    section: type[BaseModel], prefix: str, shown: dict[type[BaseModel], str]
) -> Iterator[str]:
    """Yield the tables of a section and its subsections; a class in `shown` is not repeated."""
    shown[section] = prefix
    rows, nested = [_HEAD], list[str]()
    for name, field in section.model_fields.items():
        key = f"{prefix}.{field.alias or name}"
        inner = _section(field)
        if inner is None or field.description:
            rows.append(_row(key, field))
        if inner is None:
            continue
        inner_key = f"{key}.NAME" if get_origin(field.annotation) is Mapping else key
        if inner in shown:
            nested.append(f"`{inner_key}` has the settings of `{shown[inner]}`.")
        else:
            nested += _tables(inner, inner_key, shown)
    yield "\n".join(rows)
    yield from nested


def _row(key: str, field: FieldInfo) -> str:
    return f"`{key}` | {_default(field)} | {field.description}"


def _default(field: FieldInfo) -> str:
    choices = [
        choice
        for part in _parts(field.annotation)
        if get_origin(part) is Literal
        for choice in get_args(part)
    ]
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    if field is PipelineConfig.model_fields["name"]:
        text = "the file's name"
    elif field.is_required():
        text = "**required**"
    else:
        text = "none" if value is None else f"`{_plain(value)}`"
    others = ", ".join(f"`{choice}`" for choice in choices if choice != value)
    if not others:
        return text
    return f"{text}: {others}" if field.is_required() else f"{text} or {others}"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "{}" if isinstance(value, BaseModel) else json.dumps(value)


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield an annotation and, recursively, its type arguments."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for argument in get_args(annotation):
            yield from _parts(argument)


def _section(field: FieldInfo) -> type[BaseModel] | None:
    for part in _parts(field.annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None
