"""Measure retrieval quality of the committed configurations and of the baselines.

Each configuration runs as `two-tower run --config NAME --fresh` in a new process and folder. The
model and the baselines answer the same queries over the whole catalogue. The pushed model is then
served and answers them over gRPC. Standard errors are over queries, whose events are dependent.

With `--ablations`, models of two data sets are trained with one ingredient changed at a time.

Usage: python benchmarks/quality.py [--only CONFIG ...] [--ablations [CHANGE ...]] [--json]
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt

from benchmarks._processes import TWO_TOWER, run_pipeline
from benchmarks._report import Row, options_parser, row, run

# Served and evaluated metrics may differ only by rounding.
SERVED_TOLERANCE = 0.001
QUERIES_PER_REQUEST = 64


class Goal(NamedTuple):
    """Required (`must`) and desired (`aim`) value of one metric of a configuration's model.

    `excluded` is whether candidates in the history are excluded from the recommendations.
    """

    metric: str
    must: float
    aim: float
    excluded: bool


GOALS: Mapping[str, tuple[Goal, ...]] = {
    "movielens_100k": (
        Goal("hit_rate@10", 0.160, 0.172, True),
        Goal("hit_rate@100", 0.615, 0.63, True),
        Goal("hit_rate@10", 0.050, 0.060, False),
        Goal("hit_rate@100", 0.39, 0.41, False),
    ),
    "movielens_100k_leave_last_out": (
        Goal("hit_rate@10", 0.212, 0.230, True),
        Goal("ndcg@10", 0.118, 0.128, True),
    ),
    "movielens_100k_temporal": (
        Goal("hit_rate@10", 0.214, 0.230, True),
        Goal("ndcg@10", 0.111, 0.120, True),
    ),
    "retailrocket": (
        Goal("hit_rate@20", 0.605, 0.630, False),
        Goal("mrr@20", 0.325, 0.345, False),
    ),
}
# `must` and `aim` for the CPU seconds of the movielens_100k training, which has to meet its goals.
FIT_CPU_S = (10.0, 6.0)


# Not a setting: the sampled softmax without its correction for the sampling of negatives.
WITHOUT_LOGQ = "without logQ"
# Not a setting, because it needs another schema.
WITHOUT_FEATURES = "without features"
WITHOUT_LOGQ_PROGRAM = f"""
import tensorflow as tf
import models.training.two_tower_model as two_tower
draw = two_tower.draw_negatives
def draw_uncorrected(*arguments):
    negatives, log_expected = draw(*arguments)
    return negatives, tf.zeros_like(log_expected)
two_tower.draw_negatives = draw_uncorrected
{TWO_TOWER}
"""
# Settings of all trainings, and the changes of each training by its name.
ABLATIONS: Mapping[str, tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]] = {
    "movielens_100k": (
        (),
        {
            "sampled softmax instead of full": ("training.loss=sampled_softmax",),
            "sampled softmax without logQ": ("training.loss=sampled_softmax", WITHOUT_LOGQ),
            "history dropout 0.1": ("training.history_dropout=0.1",),
            "no popularity term": ("model.candidate_bias=false",),
            "no features": (WITHOUT_FEATURES,),
            "ids instead of history": (
                "model.query_id_embedding=true",
                "model.history_encoder=none",
                "model.share_candidate_ids=false",
            ),
            "constant learning rate": ("training.schedule=constant",),
            "a table of its own for histories": ("model.share_candidate_ids=false",),
            "16 dimensions": ("model.dimension=16",),
        },
    ),
    "retailrocket": (
        # A quarter of the CPU time of the committed settings.
        ("model.dimension=64", "training.num_negatives=1024", "training.epochs=3"),
        {
            "without logQ": (WITHOUT_LOGQ,),
            "dot product instead of cosine": ("model.similarity=dot",),
            "mean instead of recency": ("model.history_encoder=mean",),
            "a table of its own for histories": ("model.share_candidate_ids=false",),
            "128 negatives": ("training.num_negatives=128",),
            "4,096 negatives": ("training.num_negatives=4096",),
            "full softmax": ("training.loss=full_softmax",),
        },
    ),
}
# A normal distribution has 95% of its mass within this many standard deviations.
DEVIATIONS = 1.96
# The gate rejects the model, so nothing is pushed. Popularity is the only baseline.
FITTED_ONLY = (
    "evaluation.min_metrics={hit_rate@100: 1.0}",
    "evaluation.baselines=[popularity]",
    "ranking.enabled=false",
)


def standard_error(config: str, runs: str, ranker: str, metric: str, configured: bool) -> float:
    """Return the standard error over queries of a metric (`event_gains`)."""
    return error_over_queries(*event_gains(config, runs, ranker, metric, configured))


def event_gains(
    config: str, runs: str, ranker: str, metric: str, configured: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the gain of each held-out event in the newest evaluation, and its query.

    Args:
        config: The configuration.
        runs: Its folder for runs.
        ranker: The model or a baseline.
        metric: The metric.
        configured: Whether seen candidates are excluded as configured, or the other way around.
    """
    import polars as pl

    from components.retrieval_evaluator.event_results import CASES_FILE
    from pipeline.runs.evaluation import newest_output

    uri = newest_output(loaded(config, runs), "RetrievalEvaluator", "evaluation")
    column = f"rank_{ranker}" if configured else f"rank_other_{ranker}"
    cases = pl.read_parquet(os.path.join(uri, CASES_FILE), columns=["query_id", column])
    gain = gains(metric, cases[column].cast(float).fill_null(np.inf).to_numpy())
    _, query = np.unique(cases["query_id"].to_numpy(), return_inverse=True)
    return gain, query


def ranking_rows(
    config: str, runs: str, metrics: Mapping[str, Mapping[str, float]], metric: str
) -> Iterator[Row]:
    """Yield the gain of ranking over retrieval, which must exceed its interval; nothing without.

    `metrics` are those by ranker, of which the list that is served is called `model`.
    """
    lists = ("ranked", "retrieved")
    if not any(name in metrics for name in lists):
        return
    (ranked, query), (retrieved, _) = (
        event_gains(config, runs, name if name in metrics else "model", metric, True)
        for name in lists
    )
    gain = ranked - retrieved
    error = error_over_queries(gain, query)
    name = f"{Path(config).stem}: {metric} of the ranked list less retrieved"
    must = DEVIATIONS * error
    yield row(name, gain.mean(), "share", must, larger_is_better=True, standard_error=error)


def error_over_queries(gain: npt.NDArray[np.float64], query: npt.NDArray[np.int64]) -> float:
    """Return the standard error over queries of the mean gain; `query` has that of each event."""
    sums = np.bincount(query, weights=gain - gain.mean())
    return float(np.sqrt((sums**2).sum()) / len(gain))


def gains(metric: str, ranks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return hit_rate@k, mrr@k or ndcg@k of each held-out event; the rank of a miss is infinity.

    For mrr and ndcg, each query must have a single held-out event.
    """
    kind, _, k = metric.partition("@")
    gain = {"hit_rate": 1.0, "mrr": 1.0 / ranks, "ndcg": 1.0 / np.log2(1.0 + ranks)}[kind]
    return np.where(ranks <= int(k), gain, 0.0)


def measured_rows(config: str, runs: str) -> Iterator[Row]:
    """Run a configuration and yield its metrics, CPU time and served metrics."""
    summary = run_pipeline(config, runs)
    excluded = loaded(config, runs).evaluation.exclude_seen
    goals = GOALS[config]
    for goal in goals:
        configured = goal.excluded == excluded
        seen = "excluded" if goal.excluded else "counted"
        for ranker, metrics in summary["metrics" if configured else "metrics_other"].items():
            bounds = (goal.must, goal.aim) if ranker == "model" else ()
            yield row(
                f"{config}, seen {seen}: {goal.metric} of {ranker}",
                metrics[goal.metric],
                "share",
                *bounds,
                larger_is_better=True,
                standard_error=standard_error(config, runs, ranker, goal.metric, configured),
            )
        if configured:
            yield from ranking_rows(config, runs, summary["metrics"], goal.metric)
    model, cpu_s = summary["metrics"]["model"], summary["fit"]["cpu_seconds"]
    if config == "movielens_100k":
        reached = all(model[goal.metric] >= goal.must for goal in goals if goal.excluded)
        name = f"{config}: CPU of the training that reaches the must"
        found = row(name, cpu_s, "s", *FIT_CPU_S)
        yield {**found, "met": reached and found["met"]}
    else:
        yield row(f"{config}: CPU of the training", cpu_s, "s")
    goals = tuple(goal for goal in goals if goal.excluded == excluded)
    # If the gate refused the model, every difference counts as 1.
    ranks = np.empty(0)
    if summary["pushed_version"] is not None:
        k = max(int(goal.metric.partition("@")[2]) for goal in goals)
        ranks = np.array(served_ranks(loaded(config, runs), summary["serving_dir"], k))
    for goal in goals:
        name = f"{config}: served {goal.metric} less evaluated"
        served = gains(goal.metric, ranks).mean() if len(ranks) else model[goal.metric] + 1.0
        yield row(name, abs(float(served) - model[goal.metric]), "share", SERVED_TOLERANCE)


def served_ranks(config: Any, serving_dir: str, k: int) -> list[float]:
    """Serve the newest pushed version, send it the evaluation queries, and return the ranks.

    The rank of a held-out candidate that is not in the response is infinity.
    """
    from components.retrieval_evaluator.evaluation_queries import read_queries
    from models.input.raw_examples import split_files
    from pipeline.runs.evaluation import client_queries, newest_output
    from serving.clients import RetrievalClient
    from serving.launcher import running_model_server

    settings = config.evaluation.for_split(config.split.method, config.spec)
    files = split_files(newest_output(config, "TimelineExampleGen", "examples"), settings.split)
    # The server takes IDs, so the indices of the candidates are not needed.
    blocks = read_queries(
        files,
        config.spec,
        settings,
        lambda ids: np.zeros(len(ids), np.int64),
        1,
        QUERIES_PER_REQUEST,
    )
    name, query_id = config.serving.model_name, config.columns.query_id
    ranks: list[float] = []
    with (
        running_model_server(serving_dir, name) as server,
        RetrievalClient(server.grpc_target, name, query_id_name=query_id, timeout_s=60.0) as client,
    ):
        for block in blocks:
            queries = client_queries(block.inputs, config.spec)
            if settings.exclude_seen:
                queries = [replace(query, exclude=query.history) for query in queries]
            for position, answer in enumerate(client.recommend(queries=queries, k=k)):
                rank_of = {found: rank for rank, found in enumerate(answer.candidate_ids, start=1)}
                targets = block.target_ids[block.target_rows == position]
                ranks += [rank_of.get(target.decode(), np.inf) for target in targets]
    return ranks


def ablation_rows(config: str, runs: str, only: Sequence[str]) -> Iterator[Row]:
    """Train with one ingredient changed at a time, and yield metrics and CPU times.

    `only` are the names of the changes; without any, all are made. Runs share the cached results of
    earlier ones, except for changes that the cache does not see.
    """
    base, trainings = ABLATIONS[config]
    for what, changes in {" ".join(base) or "as committed": (), **trainings}.items():
        if only and what not in only:
            continue
        settings = [*FITTED_ONLY, *base]
        settings += [change for change in changes if "=" in change]
        if WITHOUT_FEATURES in changes:
            settings += featureless(config, runs)
        if WITHOUT_LOGQ in changes:
            # In a new folder, because the cache does not detect this change.
            folder = tempfile.mkdtemp(dir=Path(runs).parent)
            summary = run_pipeline(config, folder, *settings, program=WITHOUT_LOGQ_PROGRAM)
        else:
            folder = runs
            summary = run_pipeline(config, folder, *settings, fresh=False)
        for goal in GOALS[config][:2]:
            value = summary["metrics"]["model"][goal.metric]
            error = standard_error(config, folder, "model", goal.metric, True)
            name = f"{config}, {what}: {goal.metric}"
            yield row(name, value, "share", standard_error=error)
        yield row(f"{config}, {what}: CPU of the training", summary["fit"]["cpu_seconds"], "s")


def featureless(config: str, runs: str) -> list[str]:
    """Write a schema without the project's features; return the settings that use it."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    project = loaded(config, runs)
    schema = text_format.Parse(Path(project.schema_file).read_text(), schema_pb2.Schema())
    features = {*project.features.query, *project.features.candidate}
    kept = [feature for feature in schema.feature if feature.name not in features]
    del schema.feature[:]
    schema.feature.extend(kept)
    file = Path(runs) / "featureless.pbtxt"
    file.write_text(text_format.MessageToString(schema))
    without = ["queries.features={}", "candidates.features={}", "index.filters=[]"]
    return [*without, f"schema.file={file}"]


def loaded(config: str, runs: str) -> Any:
    """Load the configuration with the same folder for runs as in `run_pipeline`."""
    from pipeline.config.file import load

    return load(config, [f"runs={runs}"])


def rows(options: Any, folder: Path) -> Iterator[Row]:
    if options.ablations is not None:
        for config in options.only or ABLATIONS:
            yield from ablation_rows(config, str(folder / config), options.ablations)
        return
    for config in options.only or GOALS:
        yield from measured_rows(config, str(folder / config))


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("--only", nargs="*", choices=list(GOALS), help="only these configurations")
    parser.add_argument(
        "--ablations",
        nargs="*",
        metavar="CHANGE",
        help="change one ingredient at a time instead, of these or of all",
    )
    run(parser, rows, "tensorflow", "tfx", "numpy")
