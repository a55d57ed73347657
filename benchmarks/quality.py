"""Measure retrieval quality of the committed configurations and of the baselines.

Each configuration runs as `two-tower run --config NAME --fresh` in a new process and folder, with
the seed in the configuration. The model and the baselines answer the same queries over the whole
catalogue. The pushed model is then served and answers the same queries over gRPC. Standard errors
are computed over queries, because the events of one query are not independent.

With `--ablations`, models of two data sets are trained with one ingredient changed at a time.

Usage: python benchmarks/quality.py [--only CONFIG ...] [--ablations] [--json]
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks._report import (  # noqa: E402
    Row,
    environment,
    options_parser,
    print_head,
    print_row,
    report,
    row,
    status,
)

# Served and evaluated metrics may differ only by rounding.
SERVED_TOLERANCE = 0.001


@dataclass(frozen=True)
class Goal:
    """Required (`must`) and desired (`aim`) value of one metric of a configuration's model.

    Attributes:
        metric: The metric, such as `hit_rate@10`.
        must: The required value.
        aim: The desired value.
        excluded: Whether candidates in the history are excluded from the recommendations.
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
        Goal("hit_rate@10", 0.180, 0.21, True),
        Goal("ndcg@10", 0.098, 0.115, True),
    ),
    "movielens_100k_temporal": (
        Goal("hit_rate@10", 0.150, 0.20, True),
        Goal("ndcg@10", 0.076, 0.103, True),
    ),
    "retailrocket": (
        Goal("hit_rate@20", 0.536, 0.58, False),
        Goal("mrr@20", 0.305, 0.32, False),
    ),
}
# `must` and `aim` for the CPU seconds of the movielens_100k training, which has to meet its goals.
FIT_CPU_S = (10.0, 6.0)


@dataclass(frozen=True)
class Ablation:
    """The settings of the trainings in an ablation study.

    Attributes:
        base: Settings that override the committed ones in every training.
        changes: Further settings of each training, by its name.
    """

    base: tuple[str, ...]
    changes: Mapping[str, tuple[str, ...]]


# Not a setting: the sampled softmax without its correction for the sampling of negatives.
WITHOUT_LOGQ = "without logQ"
# Not a setting, because it needs another schema.
WITHOUT_FEATURES = "without features"
WITHOUT_LOGQ_PROGRAM = """
import tensorflow as tf
import models.training.two_tower_model as two_tower
from pipeline.cli.main import main
draw = two_tower.draw_negatives
def draw_uncorrected(*arguments):
    negatives, log_expected = draw(*arguments)
    return negatives, tf.zeros_like(log_expected)
two_tower.draw_negatives = draw_uncorrected
main()
"""
ABLATIONS: Mapping[str, Ablation] = {
    "movielens_100k": Ablation(
        (),
        {
            "sampled softmax instead of full": ("training.loss=sampled_softmax",),
            "sampled softmax without logQ": ("training.loss=sampled_softmax", WITHOUT_LOGQ),
            "no history dropout": ("training.history_dropout=0",),
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
    "retailrocket": Ablation(
        # A quarter of the CPU time of the committed settings.
        ("model.dimension=64", "training.num_negatives=1024", "training.epochs=3"),
        {
            "without logQ": (WITHOUT_LOGQ,),
            "dot product instead of cosine": ("model.similarity=dot",),
            "mean instead of recency": ("model.history_encoder=mean",),
            "a table of its own for histories": ("model.share_candidate_ids=false",),
            "128 negatives": ("training.num_negatives=128",),
        },
    ),
}
# The gate rejects the model, so nothing is pushed. Popularity is the only baseline.
FITTED_ONLY = ("evaluation.min_metrics={hit_rate@100: 1.0}", "evaluation.baselines=[popularity]")


def run(
    config: str,
    runs: str,
    *settings: str,
    fresh: bool = True,
    program: str = "from pipeline.cli.main import main; main()",
) -> dict[str, Any]:
    """Run a pipeline and return its summary, even if the gate rejects the model."""
    command = [sys.executable, "-c", program]
    command += ["run", "--config", config, "--json", *(["--fresh"] if fresh else [])]
    for setting in (f"runs={runs}", *settings):
        command += ["--set", setting]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    refused = 3
    if done.returncode not in (0, refused):
        sys.exit(f"the run of {config} failed:\n{done.stderr}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def measured_rows(config: str, runs: str) -> Iterator[Row]:
    """Run a configuration and yield its metrics, CPU time and served metrics."""
    summary = run(config, runs)
    errors = standard_errors(config, runs)
    excluded = loaded(config, runs).evaluation.exclude_seen
    goals = GOALS[config]
    for goal in goals:
        table = summary["metrics" if goal.excluded == excluded else "metrics_other"]
        seen = "excluded" if goal.excluded else "counted"
        for ranker, metrics in table.items():
            mine = ranker == "model"
            yield row(
                f"{config}, seen {seen}: {goal.metric} of {ranker}",
                metrics[goal.metric],
                "share",
                goal.must if mine else None,
                goal.aim if mine else None,
                larger_is_better=True,
                standard_error=errors(ranker, goal.metric, goal.excluded == excluded),
            )
    if config == "movielens_100k":
        reached = all(
            summary["metrics"]["model"][goal.metric] >= goal.must for goal in goals if goal.excluded
        )
        cpu_s = summary["fit"]["cpu_seconds"]
        must, aim = FIT_CPU_S
        name = f"{config}: CPU of the training that reaches the must"
        yield {**row(name, cpu_s, "s", must, aim), "met": reached and cpu_s <= must}
    else:
        yield row(f"{config}: CPU of the training", summary["fit"]["cpu_seconds"], "s")
    yield from served_rows(config, runs, summary, [g for g in goals if g.excluded == excluded])


def served_rows(
    config: str, runs: str, summary: dict[str, Any], goals: list[Goal]
) -> Iterator[Row]:
    """Yield the absolute differences between served and evaluated metrics."""
    from benchmarks._served_metrics import served_ranks

    ranks: list[float] = []
    if summary["pushed_version"] is not None:
        k = max(int(goal.metric.partition("@")[2]) for goal in goals)
        ranks = served_ranks(loaded(config, runs), summary["serving_dir"], k)
    for goal in goals:
        name = f"{config}: served {goal.metric} less evaluated"
        if not ranks:  # the gate rejected the model
            yield row(name, 1.0, "share", SERVED_TOLERANCE)
            continue
        apart = abs(mean_gain(goal.metric, ranks) - summary["metrics"]["model"][goal.metric])
        yield row(name, apart, "share", SERVED_TOLERANCE)


def mean_gain(metric: str, ranks: list[float]) -> float:
    """Return hit_rate@k, mrr@k or ndcg@k, given the rank of each held-out event.

    The rank of a miss is infinity. For mrr and ndcg, each query must have a single held-out event.
    """
    kind, _, k = metric.partition("@")
    gains = {
        "hit_rate": lambda rank: 1.0,
        "mrr": lambda rank: 1.0 / rank,
        "ndcg": lambda rank: 1.0 / math.log2(1.0 + rank),
    }[kind]
    return sum(gains(rank) for rank in ranks if rank <= int(k)) / len(ranks)


def ablation_rows(config: str, runs: str) -> Iterator[Row]:
    """Train with one ingredient changed at a time, and yield metrics and CPU times.

    Runs share the cached results of earlier ones, except for changes that the cache does not see.
    """
    ablation = ABLATIONS[config]
    base = " ".join(ablation.base) or "as committed"
    for what, changes in {base: (), **ablation.changes}.items():
        settings = [*FITTED_ONLY, *ablation.base]
        for change in changes:
            if change == WITHOUT_FEATURES:
                settings += featureless(config, runs)
            elif change != WITHOUT_LOGQ:
                settings.append(change)
        if WITHOUT_LOGQ in changes:
            # In a new folder, because the cache does not detect this change.
            with tempfile.TemporaryDirectory() as apart:
                summary = run(config, apart, *settings, program=WITHOUT_LOGQ_PROGRAM)
                error = standard_errors(config, apart)
        else:
            summary = run(config, runs, *settings, fresh=False)
            error = standard_errors(config, runs)
        for goal in GOALS[config][:2]:
            value = summary["metrics"]["model"][goal.metric]
            yield row(
                f"{config}, {what}: {goal.metric}",
                value,
                "share",
                standard_error=error("model", goal.metric, True),
            )
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
    return [
        "queries.features={}",
        "candidates.features={}",
        "index.filters=[]",
        f"schema.file={file}",
    ]


def loaded(config: str, runs: str) -> Any:
    """Load the configuration with the same folder for runs as in `run`."""
    from pipeline.config.file import load

    return load(config, [f"runs={runs}"])


def standard_errors(config: str, runs: str) -> Any:
    """Return a function that computes the standard error of a metric in the newest evaluation.

    Its arguments are the ranker, the metric, and whether seen candidates are excluded as configured
    (True) or the other way around (False).
    """
    import numpy as np
    import polars as pl

    from components.retrieval_evaluator.event_results import CASES_FILE
    from pipeline.runs.evaluation import newest_output

    uri = newest_output(loaded(config, runs), "RetrievalEvaluator", "evaluation")
    cases = pl.read_parquet(os.path.join(uri, CASES_FILE))

    def error(ranker: str, metric: str, configured: bool) -> float:
        kind, _, k = metric.partition("@")
        rank = pl.col(f"rank_{ranker}" if configured else f"rank_other_{ranker}")
        gain = {
            "hit_rate": pl.lit(1.0),
            "mrr": 1.0 / rank,
            "ndcg": 1.0 / (rank + 1).log(2.0),
        }[kind]
        gains = cases.select("query_id", (gain * (rank <= int(k))).fill_null(0.0).alias("gain"))
        centred = gains.with_columns(pl.col("gain") - pl.col("gain").mean())
        sums = centred.group_by("query_id").agg(pl.col("gain").sum())["gain"].to_numpy()
        return float(np.sqrt((sums**2).sum()) / cases.height)

    return error


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--only", nargs="*", choices=list(GOALS), help="only these configurations")
    parser.add_argument(
        "--ablations", action="store_true", help="change one ingredient at a time instead"
    )
    options = parser.parse_args()
    about = environment("tensorflow", "tfx", "numpy")
    if not options.json:
        print_head(about)
    rows = []
    for config in options.only or (ABLATIONS if options.ablations else GOALS):
        with tempfile.TemporaryDirectory() as runs:
            for found in (ablation_rows if options.ablations else measured_rows)(config, runs):
                rows.append(found)
                if not options.json:
                    print_row(found)
    return report(about, rows, as_json=True) if options.json else status(rows)


if __name__ == "__main__":
    sys.exit(main())
