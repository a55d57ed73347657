"""The comparison of runs, with metrics by hand."""

from pathlib import Path

import polars as pl
import pytest

from pipeline.config.project import PipelineConfig
from pipeline.runs.comparison import compare_runs, differing_settings, paired_difference
from pipeline.runs.history import RunHistory
from pipeline.runs.metadata import open_store
from tests.pipeline.runs.metadata_rows import MetadataRows


def cases(*rows: tuple[str, str, int | None]) -> pl.DataFrame:
    """Return `cases.parquet` of held-out events: query, candidate and the rank by the model."""
    return pl.DataFrame(
        {
            "query_id": [query for query, _, _ in rows],
            "evaluation_query": list(range(len(rows))),
            "candidate_id": [candidate for _, candidate, _ in rows],
            "in_catalogue": [True] * len(rows),
            "rank_model": [rank for *_, rank in rows],
        }
    )


def test_only_queries_with_the_same_events_are_compared(config: PipelineConfig) -> None:
    first = cases(("a", "x", 1), ("a", "y", 9), ("b", "x", 11), ("c", "x", 1))
    other = cases(("c", "z", 1), ("b", "x", 2), ("a", "x", None), ("a", "y", 3))
    found = paired_difference(first, other, ["hit_rate@10", "mrr@10"], config)
    assert found["queries"] == 2
    # Of the events of a and b, two of three are hits in both runs.
    assert found["intervals"]["hit_rate@10"]["value"] == pytest.approx(0.0)
    interval = found["intervals"]["mrr@10"]
    assert interval["value"] == pytest.approx((1 / 2 + 1 / 3) / 3 - (1 + 1 / 9) / 3)
    assert interval["low"] <= interval["value"] <= interval["high"]
    of_lists = paired_difference(first, other, ["query_hit_rate@10"], config)["intervals"]
    # Of query a, one of two events is a hit instead of both; that of b is a hit now.
    assert of_lists["query_hit_rate@10"]["value"] == pytest.approx((1 / 2 + 1) / 2 - 1 / 2)
    nothing = paired_difference(first, cases(("d", "x", 1)), ["mrr@10"], config)
    assert nothing == {"queries": 0, "intervals": {}}


def test_settings_are_compared_by_their_dotted_names() -> None:
    found = differing_settings(
        [
            {"model": {"dimension": 8, "layers": [1]}, "name": "clubs"},
            {},  # of an earlier release
            {"model": {"dimension": 16, "layers": [1]}, "name": "clubs", "batch": {"k": 5}},
        ]
    )
    assert found == {"model.dimension": [8, None, 16], "batch.k": [None, None, 5]}


def test_runs_are_compared_by_what_they_recorded(config: PipelineConfig) -> None:
    store = open_store(config)
    runs = RunHistory(store, config.name)
    for run_id, dimension in (("1a", 8), ("2b", 16)):
        about = {"name": f"of {dimension}", "is_experiment": True, "overrides": ["x=1"]}
        record = runs.begin(run_id, "run", None, configuration={"dimension": dimension}, **about)
        summary = {"metrics": {"model": {"hit_rate@10": dimension / 100}}, "fit": {"epochs": 3}}
        runs.end(record, "complete", "", summary)
        MetadataRows(store, config.name).add_execution(run_id, "Trainer", 3)
    found = compare_runs(config, ["1", "2"])
    assert [run["name"] for run in found["runs"]] == ["of 8", "of 16"]
    assert [run["epochs"] for run in found["runs"]] == [3, 3]
    assert found["settings"] == {"dimension": [8, 16]}
    assert found["metrics"] == {"hit_rate@10": [0.08, 0.16]}
    assert found["differences"] == [None]
    # An experiment is never the run that is served.
    assert runs.since_last_complete() == (None, [])
    assert not (Path(config.serving_dir)).exists()
