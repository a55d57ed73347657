"""Writes a draft as a commented YAML configuration."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.init.draft import Draft, DraftedColumn
from pipeline.init.event_habits import EventHabits

# Above this share of events that repeat an earlier one, a query wants the same again.
_REPEATS = 0.1
# Tried on MovieLens 100K, cut in time, and on RetailRocket's sessions.
_EVENTS_A_STEP = 2_000
_STEPS = 1_000
# A fit of so many takes a quarter of an hour on two cores. Fewer than three passes cost a large
# catalogue much.
_MOST_STEPS = 20_000
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
# What YAML reads as something else than a string.
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def config_yaml(draft: Draft, name: str, root: Path) -> str:
    """Returns the text of a configuration.

    Args:
        draft: What to write.
        name: Of the use.
        root: What relative paths will start from.
    """
    lines = [
        f"# {name}: drafted from the first rows of the files by `two-tower init`; edit it freely.",
        "# Relative paths start from the folder of this file, or from the one above `configs/`.",
        "# What is not here has its default; `two-tower config` prints every setting.",
        "",
        *_data(draft, root),
        "",
        *_columns(draft),
        "",
        *_features(draft),
        *_split(draft),
        "",
        *_model(draft),
        *_training(draft),
        "",
        *_evaluation(draft),
    ]
    return "\n".join(lines) + "\n"


def config_path(path: Path, root: Path) -> str:
    """Returns a path as a configuration names it: relative to the root where it is below it."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _data(draft: Draft, root: Path) -> Iterator[str]:
    yield "data:"
    for role in ("interactions", "candidates", "queries"):
        if role in draft.samples:
            yield f"  {role}: {_scalar(config_path(draft.samples[role].pattern, root))}"
    if "candidates" not in draft.samples:
        yield "  # candidates: the catalogue; without a file it is what the training events hold"
    if draft.delimiter not in (None, ","):
        yield f"  delimiter: {_scalar(str(draft.delimiter))}"
    events = draft.samples["interactions"].table
    time = draft.columns.timestamp
    # Parquet's own time types keep their unit.
    if draft.unit is not None and time is not None and not events[time].dtype.is_temporal():
        yield f"  timestamp_unit: {draft.unit} # by the values; s, ms, us, ns or iso8601"
    yield "  bad_rows: stop # `reject` sets rows aside that cannot be read"


def _columns(draft: Draft) -> Iterator[str]:
    columns = draft.columns
    yield "columns:"
    yield f"  query_id: {_scalar(columns.query_id)} # who asks"
    yield f"  candidate_id: {_scalar(columns.candidate_id)} # what is retrieved"
    if columns.timestamp is not None:
        yield f"  timestamp: {_scalar(columns.timestamp)}"
    else:
        yield "  # timestamp: none, so the order of the file counts"
    if columns.rating is not None:
        yield f"  rating: {_scalar(columns.rating)}"


def _features(draft: Draft) -> Iterator[str]:
    if not draft.drafted:
        return
    yield "# Kinds: categorical, numeric (`buckets` for skewed ones) and text."
    if not any(drafted.feature for drafted in draft.drafted):
        yield "# No column became a feature:"
        yield from (_left_out(drafted) for drafted in draft.drafted)
        yield ""
        return
    yield "features:"
    for side in ("query", "candidate"):
        mine = [drafted for drafted in draft.drafted if drafted.side == side]
        if any(drafted.feature for drafted in mine):
            yield f"  {side}:"
        for drafted in mine:
            yield _feature(drafted) if drafted.feature else "    " + _left_out(drafted)
    yield ""


def _feature(drafted: DraftedColumn) -> str:
    feature = drafted.feature
    settings = feature.model_dump(exclude_defaults=True) if feature else {}
    if drafted.name != drafted.column:
        settings["column"] = drafted.column
    shown = ", ".join(
        f"{key}: {value if isinstance(value, int) else _scalar(value)}"
        for key, value in settings.items()
    )
    return f"    {_scalar(str(drafted.name))}: {{ {shown} }} # {_comment(drafted.reason)}"


def _left_out(drafted: DraftedColumn) -> str:
    return f"# left out: {_comment(drafted.column)}, {_comment(drafted.reason)}"


def _split(draft: Draft) -> Iterator[str]:
    yield "split:"
    if draft.columns.timestamp is not None:
        yield "  # The newest events are held out: what the model meets when it is served."
        yield "  method: temporal"
        yield "  eval_fraction: 0.1"
    else:
        yield "  # There are no times for a temporal cut: each query's last event is held out."
        yield "  method: leave_last_out"


def _model(draft: Draft) -> Iterator[str]:
    if draft.columns.timestamp is None:
        return
    yield "model:"
    yield "  # The newest events weigh most, and are looked up among the candidates' own vectors."
    yield "  history_encoder: recency"
    yield "  share_candidate_ids: true"
    yield "  similarity: cosine"
    yield "  temperature: 0.1"
    yield ""


def _training(draft: Draft) -> Iterator[str]:
    yield "training:"
    if draft.columns.timestamp is None:
        yield "  # Without times: the whole taste from a part of it."
        yield "  objective: reconstruct"
        batch_size, epochs = batches(draft.habits)
        yield f"  batch_size: {batch_size} # timelines; by how many events they have"
        yield f"  epochs: {epochs} # by how many events there are"
        return
    batch_size, epochs = batches(draft.habits)
    yield "  # Each event is learned from those before it."
    yield "  objective: next_candidate"
    yield "  history_dropout: 0.0"
    yield "  learning_rate: 0.02"
    yield f"  batch_size: {batch_size} # timelines; by how many events they have"
    yield f"  epochs: {epochs} # by how many events there are"


def batches(habits: EventHabits) -> tuple[int, int]:
    """Returns timelines a step, and epochs: about a thousand steps of up to 2,000 events.

    But 3 to 20 epochs; of so many events that 3 are more than twenty thousand steps, fewer.
    """
    events_a_step = min(max(habits.num_events / 50, 200), _EVENTS_A_STEP)
    timelines = events_a_step * habits.num_queries / habits.num_events
    batch_size = 2 ** min(max(round(math.log2(timelines)), 0), 9)
    steps_an_epoch = max(habits.num_queries / batch_size, 1)
    epochs = min(max(round(_STEPS / steps_an_epoch), 3), 20)
    return batch_size, max(min(epochs, round(_MOST_STEPS / steps_an_epoch)), 1)


def _evaluation(draft: Draft) -> Iterator[str]:
    yield "evaluation:"
    # Equal events without times count as repeated rows, which ingestion drops.
    if draft.habits.repeat_share >= _REPEATS and draft.columns.timestamp is not None:
        yield (
            f"  # {draft.habits.repeat_share:.0%} of the events return to a candidate of the same "
            "query."
        )
        yield "  exclude_seen: false"
    yield "  # A model is served if it is no tenth worse than the best baseline, and reaches these:"
    yield "  min_metrics: {} # for example { hit_rate@10: 0.1 }, after a first run"
    yield "  min_lift: 0.9"


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    # JSON strings are YAML strings.
    return json.dumps(text, ensure_ascii=False)


def _comment(text: str) -> str:
    return " ".join(text.split())
