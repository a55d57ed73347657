"""The table of rules by which `init` chooses settings from statistics of the events."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.errors import InitError

# What a preset says about the data, instead of the statistics of the first rows.
PRESETS: Mapping[str, Mapping[str, bool]] = {
    "sessions": {"order": True, "frequent": False, "repeats": True},
    "ratings": {"order": False, "repeats": False},
    "purchases": {"order": True, "frequent": False},
    "news": {"order": True, "frequent": False, "repeats": False, "fresh": True},
}
# A ranker learns from a tenth of the events, of which it needs about 3,000.
_RANKED_EVENTS = 30_000
# This number of steps takes 15 minutes on two cores. With large catalogues, fewer than three epochs
# reduce quality considerably.
_MOST_STEPS = 20_000


@dataclass(frozen=True)
class EventStatistics:
    """Statistics of the events; shares are those of the first rows.

    Attributes:
        repeat_share: Share of events that repeat a candidate of their query.
        order_share: Share of events, except the first of each query, whose time differs from those
            of the others of the query. None without times.
        fresh_share: Share of the newest tenth of the events whose candidate has no earlier event.
        head_share: Share of events of the 1% of the candidates that have most.
    """

    num_events: int
    num_queries: int
    num_candidates: int
    repeat_share: float = 0.0
    order_share: float | None = None
    fresh_share: float = 0.0
    head_share: float = 0.0


class Fact(NamedTuple):
    """A statement about the data, and the statistic that it follows from."""

    holds: bool
    because: str


class Choice(NamedTuple):
    """A chosen setting, such as `model.dimension`, with the reason."""

    setting: str
    value: Any
    reason: str


def facts(statistics: EventStatistics, preset: str | None = None) -> dict[str, Fact]:
    """Return what is known about the data, by name.

    Raises:
        InitError: The preset does not exist.
    """
    order, fresh = statistics.order_share, statistics.fresh_share
    repeats = statistics.repeat_share if order is not None else 0.0
    density = statistics.num_events / max(statistics.num_candidates, 1)
    found = {
        "times": Fact(order is not None, "the events have times"),
        "order": Fact(
            (order or 0.0) >= 0.1,
            "the order of the events is not known: there is no --timestamp"
            if order is None
            else f"{order:.0%} of a query's events have times of their own",
        ),
        # RetailRocket has 19 events per item and Amazon Beauty 16; MovieLens 100K has 59.
        "frequent": Fact(density >= 40, f"{density:,.0f} events per candidate"),
        "concentrated": Fact(
            statistics.head_share >= 0.2,
            f"1% of the candidates have {statistics.head_share:.0%} of the events",
        ),
        # Without times, ingestion drops repeated candidates as duplicates.
        "repeats": Fact(
            repeats >= 0.1,
            f"{repeats:.0%} of the events are of a candidate that the query has had before",
        ),
        "fresh": Fact(
            fresh >= 0.2,
            f"{fresh:.0%} of the newest events are of candidates without earlier events",
        ),
        "many": Fact(
            statistics.num_events >= _RANKED_EVENTS and order is not None,
            f"{statistics.num_events:,} events with times",
        ),
    }
    if preset is not None and preset not in PRESETS:
        raise InitError(f"--preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    for name, holds in PRESETS[preset].items() if preset else ():
        found[name] = Fact(holds, f"preset {preset}")
    return found


class _Rule(NamedTuple):
    """Values of a setting for sets, and for sequences of rare and of frequent candidates.

    None leaves the default. `reason` may contain what the fact in braces follows from. A rule with
    `needs` only holds if this fact does.
    """

    of_sets: Any
    of_rare: Any
    of_frequent: Any
    reason: str
    needs: str | None = None


_RULES: Mapping[str, _Rule] = {
    "model.history_encoder": _Rule("mean", "recency", "recency", "{order}"),
    "model.dimension": _Rule(128, 64, 128, "{frequent}"),
    "model.similarity": _Rule(
        "cosine", "cosine", "dot", "{frequent}: cosine suits sets and rare candidates"
    ),
    "model.share_candidate_ids": _Rule(
        True, True, None, "{frequent}, so histories share the embeddings"
    ),
    "model.candidate_bias": _Rule(None, True, None, "{concentrated}", needs="concentrated"),
    "training.objective": _Rule("reconstruct", "next_candidate", "next_candidate", "{order}"),
    "training.history_dropout": _Rule(
        0.5, 0.0, 0.0, "reconstruct predicts what it hides; next_candidate hides nothing"
    ),
    "training.learning_rate": _Rule(0.01, 0.02, 0.01, "for this objective and similarity"),
    "training.validation_fraction": _Rule(
        0.0, None, None, "no early stopping, which would measure only queries that are new"
    ),
    "training.num_negatives": _Rule(8192, None, None, "has no effect up to 50,000 candidates"),
}


def choices(statistics: EventStatistics, known: Mapping[str, Fact]) -> list[Choice]:
    """Return the settings for data of which these `facts` are known, in the order of the file."""
    because = {name: fact.because for name, fact in known.items()}
    column = 0
    if known["order"].holds:
        column = 2 if known["frequent"].holds else 1
    rules = [
        Choice(setting, rule[column], rule.reason.format_map(because))
        for setting, rule in _RULES.items()
        if rule[column] is not None and (rule.needs is None or known[rule.needs].holds)
    ]
    batch_size, epochs = (batches_of_sets, batches, batches_of_frequent)[column](statistics)
    if known["times"].holds:
        split = Choice("split.method", "temporal", "the evaluation predicts the newest events")
    else:
        split = Choice("split.method", "leave_last_out", "without times there is no temporal cut")
    more = [
        Choice("training.batch_size", batch_size, "timelines per step, by their length"),
        Choice("training.epochs", epochs, "at most, by the number of steps"),
    ]
    if known["many"].holds and known["order"].holds:
        reason = f"{because['many']}; it is served if it is better"
        more.append(Choice("ranking.enabled", True, reason))
    if not known["order"].holds:
        # The SVD is the best model on check-ins, and below item-kNN on listened artists.
        svd = {"model.kind": "svd", "model.similarity": "dot", "model.dimension": 512}
        recipes = [{}, {**svd, "model.share_candidate_ids": False}]
        more += [
            Choice("tuning.enabled", False, "true: compare the recipes below on training data"),
            Choice("tuning.max_seconds", 900, "no trial starts later"),
            Choice("tuning.space", {"recipe": recipes}, "these settings, or a truncated SVD"),
        ]
    # The drafted file continues the section `evaluation`.
    if known["repeats"].holds:
        more.append(Choice("evaluation.exclude_seen", False, because["repeats"]))
    return [split, *rules, *more]


def batches(statistics: EventStatistics) -> tuple[int, int]:
    """Return a batch size and a number of epochs for about 600 steps of up to 2,000 events.

    The number of epochs is 4 to 20, or less if 4 epochs would need more than 20,000 steps. Tuned on
    RetailRocket, and the number of steps on beauty, where 1,000 steps are no better.
    """
    events_per_step = min(max(statistics.num_events / 50, 200), 2_000)
    return _batches(statistics, events_per_step / _length(statistics), 9, (4, 20), 600)


def batches_of_frequent(statistics: EventStatistics) -> tuple[int, int]:
    """Return a batch size and a number of epochs for many events per candidate.

    On the newest tenth of the training events of MovieLens 100K, hit_rate@10 is .207 with 64
    timelines in a step and 8 epochs, and .205 with 16 epochs.
    """
    return _batches(statistics, 5_000 / _length(statistics), 9, (3, 8), 1_000)


def batches_of_sets(statistics: EventStatistics) -> tuple[int, int]:
    """Return a batch size and a number of epochs for data without order.

    A step has one row of logits per timeline, so its cost does not depend on the number of events.
    There are up to 128 timelines in a step, and 15 steps in an epoch of little data.
    """
    return _batches(statistics, statistics.num_queries / 15, 7, (8, 20), 1_000)


def _length(statistics: EventStatistics) -> float:
    return statistics.num_events / statistics.num_queries


def _batches(
    statistics: EventStatistics,
    timelines: float,
    most_bits: int,
    epochs: tuple[int, int],
    steps: int,
) -> tuple[int, int]:
    batch_size = 2 ** min(max(round(math.log2(timelines)), 0), most_bits)
    steps_per_epoch = max(statistics.num_queries / batch_size, 1)
    number = min(max(round(steps / steps_per_epoch), epochs[0]), epochs[1])
    return batch_size, max(min(number, round(_MOST_STEPS / steps_per_epoch)), 1)
