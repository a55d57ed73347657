"""Translation of the former sections `data`, `columns` and `features` to the current ones."""

from collections.abc import Mapping
from typing import Any

import yaml

_COLUMNS = ("query_id", "candidate_id", "timestamp", "rating", "event_type")
_MOVED = {
    "data.interactions": "events.files",
    **{f"columns.{name}": f"events.{name}" for name in _COLUMNS},
    "data.timestamp_unit": "events.timestamp_unit",
    "data.min_rating": "events.min_rating",
    "data.duplicate_events": "events.duplicates",
    "data.max_events": "events.max_timeline",
    "data.spans": "events.spans",
    "data.candidates": "candidates.file",
    "features.candidate": "candidates.features",
    "data.queries": "queries.file",
    "features.query": "queries.features",
    "data.format": "ingest.format",
    "data.delimiter": "ingest.delimiter",
    "data.bad_rows": "ingest.bad_rows",
    "data.bigquery": "ingest.bigquery",
}
OLD_SECTIONS = frozenset(name.partition(".")[0] for name in _MOVED)


def new_name(setting: str) -> str | None:
    """Return the current name of a renamed setting, or None if `setting` was not renamed."""
    for old, new in _MOVED.items():
        if setting == old or setting.startswith(f"{old}."):
            return new + setting[len(old) :]
    return None


def translation(content: Mapping[str, Any]) -> str | None:
    """Return the YAML that replaces the former sections, or None if there are none."""
    if not OLD_SECTIONS & content.keys():
        return None
    translated: dict[str, Any] = {}
    for old, new in _MOVED.items():
        section, key = old.split(".")
        values = content.get(section)
        if isinstance(values, Mapping) and key in values:
            new_section, new_key = new.split(".")
            translated.setdefault(new_section, {})[new_key] = values[key]
    return yaml.safe_dump(translated, sort_keys=False, allow_unicode=True)
