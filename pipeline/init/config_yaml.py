"""Rendering of a drafted configuration as YAML with comments."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from components.interactions.spans.pattern import span_kind
from pipeline.config.yaml_text import quote
from pipeline.init.column_profile import profile
from pipeline.init.draft import Draft, DraftedColumn, EventStatistics, id_keys

# Share of repeated candidates from which `evaluation.exclude_seen` is set to false.
_REPEATS = 0.1
# Tuned on MovieLens 100K with a temporal split, and on RetailRocket.
_EVENTS_PER_STEP = 2_000
_STEPS = 1_000
# This number of steps takes 15 minutes on two cores. With large catalogues, fewer than three epochs
# reduce quality considerably.
_MOST_STEPS = 20_000
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
# A ranker learns from a tenth of the events, of which it needs about 3,000.
_RANKED_EVENTS = 30_000
# Words that YAML 1.1 or 1.2 reads as a boolean or null.
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}

_HEAD = """\
# yaml-language-server: $schema={settings_schema}
# {name}: drafted by `two-tower init` from the first rows of the files; edit it freely.
# Relative paths start from the folder of this file, or from the one above `configs/`.
# Settings that are not listed have defaults; `two-tower config` prints all of them.
"""
_WITH_TIMES = """
split:
  # The newest events are held out, so the model is evaluated on the future.
  method: temporal
  eval_fraction: 0.1

model:
  # The newest events weigh most. They share the embeddings of the candidates.
  history_encoder: recency
  share_candidate_ids: true
  similarity: cosine
  temperature: 0.1

training:
  # The model learns to predict each event from those before it.
  objective: next_candidate
  history_dropout: 0.0
  learning_rate: 0.02"""
_WITHOUT_TIMES = """
split:
  # Without times there is no temporal cut, so each query's last event is held out.
  method: leave_last_out

model:
  # Without times, the history is a set, so the encoder ignores the order.
  history_encoder: mean
  dimension: 128
  similarity: cosine
  temperature: 0.1

training:
  # The model learns to complete a timeline from a part of it.
  objective: reconstruct
  history_dropout: 0.5
  learning_rate: 0.01
  num_negatives: 8192 # has no effect up to 50,000 candidates"""


def config_yaml(draft: Draft, name: str, root: Path, settings_schema: str) -> str:
    """Return the YAML of a draft; paths below `root` become relative.

    `settings_schema` is the name of the JSON Schema file, which is in the same folder.
    """
    has_times = draft.columns.timestamp is not None
    batch_size, epochs = (batches if has_times else batches_of_sets)(draft.statistics)
    lines = [
        _HEAD.format(settings_schema=settings_schema, name=name),
        *_events(draft, root),
        "",
        *_entity("candidates", "candidate", draft, root),
        *_entity("queries", "query", draft, root),
        "ingest:",
        "  bad_rows: stop # `reject` writes unreadable rows to a separate output and goes on",
        _WITH_TIMES if has_times else _WITHOUT_TIMES,
        f"  batch_size: {batch_size} # timelines per step, chosen by their length",
        f"  epochs: {epochs} # chosen by the number of steps",
        "",
        *_ranking(draft),
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
    indent = "  "
    if any(column.feature for column in drafted):
        yield "  features: # categorical, numeric (`buckets` for skewed values) or text"
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


def batches(statistics: EventStatistics) -> tuple[int, int]:
    """Return a batch size and a number of epochs for about 1,000 steps of up to 2,000 events.

    The number of epochs is 3 to 20, or less if 3 epochs would need more than 20,000 steps.
    """
    events_per_step = min(max(statistics.num_events / 50, 200), _EVENTS_PER_STEP)
    timelines = events_per_step * statistics.num_queries / statistics.num_events
    batch_size = 2 ** min(max(round(math.log2(timelines)), 0), 9)
    steps_per_epoch = max(statistics.num_queries / batch_size, 1)
    epochs = min(max(round(_STEPS / steps_per_epoch), 3), 20)
    return batch_size, max(min(epochs, round(_MOST_STEPS / steps_per_epoch)), 1)


def batches_of_sets(statistics: EventStatistics) -> tuple[int, int]:
    """Return a batch size and a number of epochs for data without times.

    A step has one row of logits per timeline, so its cost does not depend on the number of events.
    There are up to 128 timelines in a step, and 15 steps in an epoch of little data.
    """
    batch_size = 2 ** min(max(round(math.log2(statistics.num_queries / 15)), 0), 7)
    steps_per_epoch = max(statistics.num_queries / batch_size, 1)
    epochs = min(max(round(_STEPS / steps_per_epoch), 8), 20)
    return batch_size, max(min(epochs, round(_MOST_STEPS / steps_per_epoch)), 1)


def _ranking(draft: Draft) -> Iterator[str]:
    if draft.columns.timestamp is not None and draft.statistics.num_events >= _RANKED_EVENTS:
        yield "ranking:"
        yield "  # A second model orders the candidates; it is served if it is better."
        yield "  enabled: true"
        yield ""


def _evaluation(draft: Draft) -> Iterator[str]:
    yield "evaluation:"
    repeats = draft.statistics.repeat_share
    # With timestamps only: without them, ingestion drops repeated candidates as duplicates.
    if repeats >= _REPEATS and draft.columns.timestamp is not None:
        yield f"  # {repeats:.0%} of the events are of a candidate that the query has had before."
        yield "  exclude_seen: false"
    yield "  # The gate accepts a model with 90% of the best baseline's metric and these values:"
    yield "  min_metrics: {} # for example { hit_rate@10: 0.1 }, after a first run"
    yield "  min_lift: 0.9"


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return quote(text)


def _comment(text: str) -> str:
    return " ".join(text.split())
