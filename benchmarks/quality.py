"""Retrieval quality: the committed configurations through the pipeline, beside the baselines.

Each row is a whole `two-tower run --config NAME --fresh` in a process and a folder of its own, with
the seed of the configuration. Every contender answers the same questions over the whole catalogue.
The pushed model is then served and asked the same questions over gRPC. Standard errors are over
queries, whose events hang together.

`--ablations` instead fits the first and the last data set with one ingredient changed at a time.

Usage: python benchmarks/quality.py [--only CONFIG ...] [--ablations] [--json]
"""

import argparse
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

from benchmarks._report import Row, environment, print_head, print_row, report, row, status  # noqa: E402

# What is served may differ from what was evaluated by rounding alone.
SERVED_TOLERANCE = 0.001


@dataclass(frozen=True)
class Goal:
    """A metric of a configuration's model, and where it should be."""

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
# CPU seconds of the fit that reaches the first row.
FIT_CPU_S = (10.0, 6.0)


@dataclass(frozen=True)
class Ablation:
    """One ingredient changed at a time, beside a base.

    Attributes:
        base: Settings beside the committed ones, for all.
        changes: Settings of each change.
    """

    base: tuple[str, ...]
    changes: Mapping[str, tuple[str, ...]]


# In the place of settings: the sampled softmax without its correction, which no setting can do.
WITHOUT_LOGQ = "without logQ"
# Likewise: a schema of its own goes with it.
WITHOUT_FEATURES = "without features"
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
        # A quarter of the CPU of the committed settings.
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
# Nothing is served, and nothing but popularity is beside it.
FITTED_ONLY = ("evaluation.min_metrics={hit_rate@100: 1.0}", "evaluation.baselines=[popularity]")


def run(
    config: str,
    runs: str,
    *settings: str,
    fresh: bool = True,
    program: str = "from pipeline.cli.main import main; main()",
) -> dict[str, Any]:
    """Runs a pipeline; a model that its gate refuses is measured too."""
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
    """Runs a configuration and yields its rows."""
    summary = run(config, runs)
    errors = standard_errors(config, runs)
    excluded = loaded(config, runs).evaluation.exclude_seen
    goals = GOALS[config]
    for goal in goals:
        table = summary["metrics" if goal.excluded == excluded else "metrics_other"]
        seen = "excluded" if goal.excluded else "counted"
        for contender, metrics in table.items():
            mine = contender == "model"
            yield row(
                f"{config}, seen {seen}: {goal.metric} of {contender}",
                metrics[goal.metric],
                "share",
                goal.must if mine else None,
                goal.aim if mine else None,
                larger_is_better=True,
                standard_error=errors(contender, goal.metric, goal.excluded == excluded),
            )
    if config == "movielens_100k":
        reached = all(
            summary["metrics"]["model"][goal.metric] >= goal.must for goal in goals if goal.excluded
        )
        cpu_s = summary["fit"]["cpu_seconds"]
        must, aim = FIT_CPU_S
        name = f"{config}: CPU of a fit to the first row's must"
        yield {**row(name, cpu_s, "s", must, aim), "met": reached and cpu_s <= must}
    else:
        yield row(f"{config}: CPU of the fit", summary["fit"]["cpu_seconds"], "s")
    yield from served_rows(config, runs, summary, [g for g in goals if g.excluded == excluded])


def served_rows(
    config: str, runs: str, summary: dict[str, Any], goals: list[Goal]
) -> Iterator[Row]:
    """How far the served model's answers are from what was evaluated."""
    from benchmarks._served_metrics import served_ranks

    ranks: list[float] = []
    if summary["pushed_version"] is not None:
        k = max(int(goal.metric.partition("@")[2]) for goal in goals)
        ranks = served_ranks(loaded(config, runs), summary["serving_dir"], k)
    for goal in goals:
        name = f"{config}: served {goal.metric}, apart from evaluated"
        if not ranks:  # the gate refused the model
            yield row(name, 1.0, "share", SERVED_TOLERANCE)
            continue
        apart = abs(mean_gain(goal.metric, ranks) - summary["metrics"]["model"][goal.metric])
        yield row(name, apart, "share", SERVED_TOLERANCE)


def mean_gain(metric: str, ranks: list[float]) -> float:
    """Returns hit_rate, mrr or ndcg at k over events of these ranks, infinite for a miss.

    Where a question has several right answers, mrr and ndcg would not be this.
    """
    kind, _, k = metric.partition("@")
    gains = {
        "hit_rate": lambda rank: 1.0,
        "mrr": lambda rank: 1.0 / rank,
        "ndcg": lambda rank: 1.0 / math.log2(1.0 + rank),
    }[kind]
    return sum(gains(rank) for rank in ranks if rank <= int(k)) / len(ranks)


def ablation_rows(config: str, runs: str) -> Iterator[Row]:
    """Fits with one ingredient changed at a time, on what the whole run has transformed."""
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
            # The cache knows nothing of the change.
            program = "from benchmarks._without_logq import main; main()"
            with tempfile.TemporaryDirectory() as apart:
                summary = run(config, apart, *settings, program=program)
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
        yield row(f"{config}, {what}: CPU of the fit", summary["fit"]["cpu_seconds"], "s")


def featureless(config: str, runs: str) -> list[str]:
    """Returns the settings of a use without its features, and writes the schema that fits."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    use = loaded(config, runs)
    schema = text_format.Parse(Path(use.schema_file).read_text(), schema_pb2.Schema())
    features = {*use.features.query, *use.features.candidate}
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
    """The configuration as it was run."""
    from pipeline.config.file import load

    return load(config, [f"runs={runs}"])


def standard_errors(config: str, runs: str) -> Any:
    """Returns a function of contender, metric and whether seen are treated as configured."""
    import numpy as np
    import polars as pl

    from components.retrieval_evaluator.case_results import CASES_FILE
    from pipeline.runs.evaluation import newest_output

    uri = newest_output(loaded(config, runs), "RetrievalEvaluator", "evaluation")
    cases = pl.read_parquet(os.path.join(uri, CASES_FILE))

    def error(contender: str, metric: str, configured: bool) -> float:
        kind, _, k = metric.partition("@")
        rank = pl.col(f"rank_{contender}" if configured else f"rank_other_{contender}")
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=list(GOALS), help="these configurations")
    parser.add_argument(
        "--ablations", action="store_true", help="instead, change one ingredient at a time"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
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
