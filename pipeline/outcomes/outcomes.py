"""Online metrics of served versions: which of the shown candidates had an event afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from components.interactions.config import SpansConfig
from components.interactions.rows.checks import rated_high_enough, read_rows
from components.interactions.sources.columns import TIME_US
from components.interactions.sources.files import find_files
from components.retrieval_evaluator.bootstrap import Interval
from models.features.spec import EVENT_TYPE_KEY
from pipeline.config.project import PipelineConfig
from pipeline.errors import RequestLogError
from pipeline.outcomes.exposures import read_exposures

_RESAMPLES = 1000
_TAILS = (0.025, 0.975)
_SEED = 42

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a version, or of its answers under one label.

    Attributes:
        label: The label of the requests, "" for those without one, or None for all.
        hit_rate: Share of the answers with an event for at least one of their candidates.
        ctr: Share of the shown candidates with an event.
    """

    version: int
    label: str | None
    num_answers: int
    num_queries: int
    hit_rate: Interval
    ctr: Interval


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of all versions by label, most answers first.

    `of_versions` has the outcome of each version with its resampled hit rates [_RESAMPLES].
    """

    k: int
    num_events: int
    by_label: tuple[Outcome, ...]
    of_versions: Mapping[int, tuple[Outcome, Floats]]

    def difference(self, version: int, other: int) -> Interval:
        """Return the hit rate of a version minus that of another one; both must have answers."""
        (mine, resampled), (others, resampled_others) = (
            self.of_versions[number] for number in (version, other)
        )
        low, high = np.quantile(resampled - resampled_others, _TAILS)
        return Interval(mine.hit_rate.value - others.hit_rate.value, float(low), float(high))

    def to_json(self) -> dict[str, Any]:
        """Return the outcomes by version and label as JSON-serializable data."""
        outcomes = [asdict(outcome) for outcome in self.by_label]
        return {"k": self.k, "num_events": self.num_events, "outcomes": outcomes}


def measure_outcomes(
    config: PipelineConfig,
    requests: Path,
    events: str,
    *,
    k: int,
    within: timedelta,
    event_types: Sequence[str] = (),
) -> Outcomes:
    """Join the answers of a request log with the events after them.

    An event counts for the newest answer before it that has its query and candidate, if that is at
    most `within` old.

    Args:
        config: The configuration, which names the columns of the events.
        requests: A file of the request log, or its folder.
        events: A pattern of files in the format of `events.files`.
        k: Number of candidates that were shown.
        within: Longest time between an answer and an event.
        event_types: The event types that count; all if empty.

    Raises:
        RequestLogError: The log cannot be read, or has no answer that can be joined.
        IngestError: The events cannot be read.
    """
    if config.events.timestamp is None:
        raise RequestLogError(
            "outcomes need the times of the events, so `events.timestamp` must be set"
        )
    exposures = read_exposures(requests, config.events.query_id, k).with_row_index("answer")
    found = _read_events(config, events, event_types)
    shown = exposures.explode("candidates").rename({"candidates": "candidate"}).sort("time")
    clicked = (
        found.sort("time")
        .join_asof(
            shown,
            on="time",
            by=["query", "candidate"],
            strategy="backward",
            tolerance=within,
            check_sortedness=False,
        )
        .drop_nulls("answer")
        .unique(["answer", "candidate"])
        .group_by("answer")
        .len("clicks")
    )
    answers = (
        exposures.join(clicked, on="answer", how="left")
        .with_columns(pl.col("clicks").fill_null(0), shown=pl.col("candidates").list.len())
        .group_by("version", "label", "query")
        .agg(
            answers=pl.len(),
            hits=(pl.col("clicks") > 0).sum(),
            clicks=pl.col("clicks").sum(),
            shown=pl.col("shown").sum(),
        )
        .sort("version", "label", "query")
    )
    by_label = [_outcome(part)[0] for part in answers.partition_by("version", "label")]
    by_label.sort(key=lambda outcome: -outcome.num_answers)
    total = answers.drop("label").group_by("version", "query").sum().sort("version", "query")
    of_versions = {part["version"][0]: _outcome(part) for part in total.partition_by("version")}
    return Outcomes(k, len(found), tuple(by_label), of_versions)


def _read_events(config: PipelineConfig, pattern: str, event_types: Sequence[str]) -> pl.DataFrame:
    spec, ingest = config.spec, config.ingestion
    path = pattern if "://" in pattern else str(Path(pattern).absolute())
    data = ingest.data.model_copy(update={"interactions": path, "spans": SpansConfig()})
    ingest = ingest.model_copy(update={"data": data, "chosen_spans": None})
    keys = {spec.query_id: "query", spec.candidate_id: "candidate", TIME_US: "time"}
    parts = []
    for file in find_files(ingest, ["interactions"]):
        for good, _ in read_rows(ingest, file) if file.header else ():
            rows: Any = pl.from_arrow(rated_high_enough(good, ingest.data.min_rating))
            if event_types:
                rows = rows.filter(pl.col(EVENT_TYPE_KEY).cast(pl.String).is_in(event_types))
            parts.append(rows.select(pl.col(old).alias(new) for old, new in keys.items()))
    time = pl.from_epoch("time", time_unit="us").dt.replace_time_zone("UTC")
    texts = pl.col("query", "candidate").cast(pl.String)
    events: pl.DataFrame = pl.concat(parts).with_columns(texts, time)
    return events


def _outcome(queries: pl.DataFrame) -> tuple[Outcome, Floats]:
    """Return the outcome of a version or of one of its labels, and its resampled hit rates.

    Queries are resampled instead of answers, because the answers of a query are correlated.
    """
    sums = queries.select("hits", "answers", "clicks", "shown").to_numpy().astype(np.float64)
    number = len(sums)
    rng = np.random.default_rng(_SEED)
    resampled = (
        np.bincount(rng.integers(0, number, number), minlength=number) @ sums
        for _ in range(_RESAMPLES)
    )
    totals = np.vstack([sums.sum(axis=0), *resampled])
    hit_rates, ctrs = totals[:, 0] / totals[:, 1], totals[:, 2] / np.maximum(totals[:, 3], 1)
    hit_rate, ctr = (
        Interval(float(values[0]), *map(float, np.quantile(values[1:], _TAILS)))
        for values in (hit_rates, ctrs)
    )
    version = int(queries["version"][0])
    label = queries["label"][0] if "label" in queries.columns else None
    return Outcome(version, label, int(sums[:, 1].sum()), number, hit_rate, ctr), hit_rates[1:]
