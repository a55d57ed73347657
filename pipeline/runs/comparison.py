"""Comparison of runs: the settings that differ, metrics with paired intervals, time and size."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.retrieval_evaluator.bootstrap import PairedBootstrap
from components.retrieval_evaluator.metrics import RankMetrics
from pipeline.config.project import PipelineConfig
from pipeline.runs.history import RunRecord, find_run
from pipeline.runs.metadata import open_store
from pipeline.runs.results import live_outputs, with_results

# Metrics of which a comparison has the intervals, besides that of the gate.
_PAIRED = ("hit_rate@", "mrr@", "ndcg@")
_CASES_FILE = "cases.parquet"
_UNRANKED = 2**62


def compare_runs(config: PipelineConfig, run_ids: Sequence[str]) -> dict[str, Any]:
    """Compare runs, which may be given by the first characters of their IDs, with the first one.

    Returns:
        - `runs`: ID, name, state, overrides, `seconds`, `training_seconds`, `epochs` and
          `model_bytes` of each run
        - `settings`: the values by run of each setting that differs, by its dotted name; null for a
          run of an earlier release, which did not record its settings
        - `metrics`: the values by run of each metric of the model
        - `differences`: for each run except the first, the number of common `queries` and the
          `intervals` of its metrics minus those of the first run; the intervals are of the same
          queries with the same held-out events

    Raises:
        UnknownRunError: There is no such run.
    """
    store = open_store(config)
    records = with_results(store, [find_run(config, run_id) for run_id in run_ids])
    outputs = [live_outputs(config, store, record.run_id) for record in records]
    cases = [_cases(found.get(("RetrievalEvaluator", "evaluation"))) for found in outputs]
    measured = [record.summary.get("metrics", {}).get("model", {}) for record in records]
    names = list(dict.fromkeys(name for values in measured for name in values))
    of_gate = {record.summary.get("gate_metric") for record in records}
    paired = [name for name in names if name.startswith(_PAIRED) or name in of_gate]
    first, *others = cases
    return {
        "runs": [
            _about(record, found.get(("Trainer", "model")))
            for record, found in zip(records, outputs, strict=True)
        ],
        "settings": differing_settings([record.configuration for record in records]),
        "metrics": {name: [values.get(name) for values in measured] for name in names},
        "differences": [
            None
            if first is None or other is None
            else paired_difference(first, other, paired, config)
            for other in others
        ],
    }


def differing_settings(configurations: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the settings whose values differ, by dotted name, with one value per configuration."""
    settings = [dict(flat(configuration)) for configuration in configurations]
    known = [values for values in settings if values]
    names = dict.fromkeys(name for values in settings for name in values)
    return {
        name: [values.get(name) for values in settings]
        for name in names
        if any(values.get(name) != known[0].get(name) for values in known)
    }


def paired_difference(
    first: pl.DataFrame, other: pl.DataFrame, metrics: Sequence[str], config: PipelineConfig
) -> dict[str, Any]:
    """Compare the results of two runs (`cases.parquet`) on the queries that both evaluated."""
    both = _events_by_query(first).join(_events_by_query(other), on=["query_id", "events"])
    pair = [_metrics(cases, both["query_id"]) for cases in (first, other)]
    intervals: dict[str, Any] = {}
    for metric in metrics if len(both) else ():
        (sums, weights), (others, _) = (ranks.per_query(metric) for ranks in pair)
        bootstrap = PairedBootstrap(
            {"first": sums, "other": others},
            weights,
            config.evaluation.resamples,
            config.evaluation.confidence,
        )
        intervals[metric] = asdict(bootstrap.difference("other", "first", 1.0))
    return {"queries": len(both), "intervals": intervals}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each setting."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _cases(evaluation: Any) -> pl.DataFrame | None:
    path = Path("" if evaluation is None else evaluation.uri) / _CASES_FILE
    return pl.read_parquet(path) if path.is_file() else None


def _events_by_query(cases: pl.DataFrame) -> pl.DataFrame:
    events = pl.col("candidate_id").str.join("\0").alias("events")
    return cases.group_by("query_id", maintain_order=True).agg(events)


def _metrics(cases: pl.DataFrame, queries: pl.Series) -> RankMetrics:
    # A stable sort keeps the order of the events of a query, which is the same in both runs.
    kept = cases.filter(pl.col("query_id").is_in(queries.implode())).sort(
        "query_id", maintain_order=True
    )
    codes = (pl.col("query_id", "candidate_id").rank("dense") - 1).cast(pl.Int64)
    coded = kept.with_columns(codes)
    targets = coded["candidate_id"].to_numpy()
    return RankMetrics(
        coded["rank_model"].fill_null(_UNRANKED).to_numpy().astype(np.int64),
        coded["evaluation_query"].to_numpy(),
        coded["query_id"].to_numpy(),
        np.where(coded["in_catalogue"].to_numpy(), targets, -1),
    )


def _about(record: RunRecord, model: Any) -> dict[str, Any]:
    fit = record.summary.get("fit", {})
    folder = None if model is None else Path(model.uri)
    return {
        "run_id": record.run_id,
        "name": record.name,
        "state": record.state,
        "overrides": record.overrides,
        "seconds": record.ended_s - record.started_s if record.ended_s else None,
        "training_seconds": fit.get("seconds"),
        "epochs": fit.get("epochs"),
        "model_bytes": folder
        and sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    }
