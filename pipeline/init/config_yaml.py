"""Rendering of a drafted configuration as YAML with comments."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from components.interactions.spans.pattern import span_kind
from pipeline.config.yaml_text import quote
from pipeline.init.column_profile import profile
from pipeline.init.draft import Draft, DraftedColumn, id_keys

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
# Words that YAML 1.1 or 1.2 reads as a boolean or null.
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}

_HEAD = """\
# yaml-language-server: $schema={settings_schema}
# {name}: drafted by `two-tower init` from the first rows of the files; edit it freely.
# Relative paths start from the folder of this file, or from the one above `configs/`.
# Settings that are not listed have defaults; `two-tower config` prints all of them.
"""


def config_yaml(draft: Draft, name: str, root: Path, settings_schema: str) -> str:
    """Return the YAML of a draft; paths below `root` become relative.

    `settings_schema` is the name of the JSON Schema file, which is in the same folder.
    """
    lines = [
        _HEAD.format(settings_schema=settings_schema, name=name),
        *_events(draft, root),
        "",
        *_entity("candidates", "candidate", draft, root),
        *_entity("queries", "query", draft, root),
        "ingest:",
        "  bad_rows: stop # `reject` writes unreadable rows to a separate output and goes on",
        "",
        *_sections(draft),
        *_evaluation(draft),
    ]
    return "\n".join(lines) + "\n"


def _path(pattern: Path, root: Path) -> str:
    """Return a path as YAML, relative to `root` if it is inside `root`."""
    return _scalar(str(pattern.relative_to(root) if pattern.is_relative_to(root) else pattern))


def _events(draft: Draft, root: Path) -> Iterator[str]:
    columns, sample = draft.columns, draft.samples["events"]
    yield "events:"
    yield f"  files: {_path(sample.pattern, root)}"
    if span_kind(str(sample.pattern)):
        yield "  spans: { window: all, missing: warn } # every span, even if one between is missing"
    query_id, candidate_id = id_keys(columns)
    for setting, key, column, meaning in (
        ("query_id", query_id, columns.query_id, "the user or the session"),
        ("candidate_id", candidate_id, columns.candidate_id, "the item to recommend"),
    ):
        yield f"  {setting}: {_scalar(key)} # {meaning}"
        if key != column:
            yield f"  {setting}_column: {_scalar(column)} # in the files; requests use {key}"
    if columns.timestamp is None:
        yield "  # timestamp: no column, so events keep the order of the file"
    else:
        yield f"  timestamp: {_scalar(columns.timestamp)}"
        # Timestamps in Parquet files have a unit.
        if draft.times and not sample.table[columns.timestamp].dtype.is_temporal():
            yield f"  timestamp_unit: {_scalar(draft.times.unit)} # read as {draft.times.range}"
    if columns.rating is not None:
        median = profile(sample.table[columns.rating]).numbers.quantile(0.5, "nearest") or 0
        yield f"  rating: {_scalar(columns.rating)} # has no effect without the next lines"
        yield f"  # min_rating: {median:g} # would ignore events with a lower rating"
        yield f"  # rating_weights: {{ {median:g}: 1 }} # would weight events by their ratings"
    if draft.rating_format is not None:
        yield f"  rating_format: {_scalar(draft.rating_format)}"
    if columns.event_type is not None:
        column = _scalar(columns.event_type)
        yield f"  event_type: {column}"
        types = sample.table[columns.event_type].drop_nulls().cast(pl.String)
        weights = ", ".join(f"{_scalar(name)}: 1" for name in types.value_counts(sort=True)[:10, 0])
        yield f"  types: {{ {weights} }} # weights in training and evaluation"
    if context := [column for column in draft.drafted if column.side == "context"]:
        yield "  context: # features of single events; requests have those of the moment"
        yield from (f"    {_column(column)}" for column in context)


def _entity(section: str, side: str, draft: Draft, root: Path) -> Iterator[str]:
    if section not in draft.samples:
        if section == "candidates":
            yield "# No `candidates.file`: the candidates are those of the training events."
            yield ""
        return
    drafted = [column for column in draft.drafted if column.side == side]
    yield f"{section}:"
    sample = draft.samples[section]
    yield f"  file: {_path(sample.pattern, root)}"
    of_events = getattr(draft.columns, f"{side}_id")
    if (id_column := sample.id_column(of_events)) != of_events:
        yield f"  id_column: {_scalar(id_column)} # {_comment(of_events)} in the events"
    for setting, column, reason in draft.availability if side == "candidate" else ():
        yield f"  {setting}: {_scalar(column)} # {_comment(reason)}"
    indent = "  "
    if any(column.feature for column in drafted):
        yield "  features: # categorical, numeric (`buckets` if skewed), text, path or vector"
        indent = "    "
    yield from (indent + _column(column) for column in drafted)
    yield ""


def _column(drafted: DraftedColumn) -> str:
    reason = _comment(drafted.reason)
    if drafted.feature is None:
        return f"# left out: {_comment(drafted.column)}, {reason}"
    settings = drafted.feature.model_dump(exclude_defaults=True)
    if drafted.name != drafted.column:
        settings["column"] = drafted.column
    shown = ", ".join(
        f"{key}: {value if isinstance(value, int) else _scalar(value)}"
        for key, value in settings.items()
    )
    return f"{_scalar(drafted.name)}: {{ {shown} }} # {reason}"


def _sections(draft: Draft) -> Iterator[str]:
    """Yield the chosen settings of each section, each with its reason."""
    by_section = itertools.groupby(draft.choices, lambda choice: choice.setting.split(".")[0])
    for section, group in by_section:
        yield f"{section}:"
        for setting, value, reason in group:
            shown = value if isinstance(value, str) else json.dumps(value)
            yield f"  {setting.split('.')[1]}: {shown} # {_comment(reason)}"
        if section != "evaluation":
            yield ""


def _evaluation(draft: Draft) -> Iterator[str]:
    if not any(choice.setting.startswith("evaluation.") for choice in draft.choices):
        yield "evaluation:"
    yield "  # The gate accepts a model with 90% of the best baseline's metric and these values:"
    yield "  min_metrics: {} # for example { hit_rate@10: 0.1 }, after a first run"
    yield "  min_lift: 0.9"


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return quote(text)


def _comment(text: str) -> str:
    return " ".join(text.split())
