"""Evaluate the exported towers and the baselines on a split, over the full catalogue."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from components.gates import without_nan
from components.retrieval_evaluator.baselines.fitting import fit_baselines
from components.retrieval_evaluator.baselines.interface import (
    CandidateIndex,
    Ints,
    read_training_events,
)
from components.retrieval_evaluator.bootstrap import Comparison, Interval, PairedBootstrap
from components.retrieval_evaluator.config import MAX_CHANCE, EvaluationConfig
from components.retrieval_evaluator.evaluation_queries import (
    QuerySample,
    read_queries,
    sample_queries,
)
from components.retrieval_evaluator.event_results import (
    METRIC_COLUMNS,
    RANK,
    RANK_OTHER,
    EventResults,
    rank_events,
)
from components.retrieval_evaluator.metrics import EVENT_METRICS, RankMetrics, metric_names
from components.retrieval_evaluator.rankers import (
    LAST_BLESSED,
    MODEL,
    baseline_ranker,
)
from components.retrieval_evaluator.samples import Samples, take_samples
from components.retrieval_evaluator.slices import candidate_labels, slice_labels, slice_metrics
from components.retrieval_evaluator.task_quality import TaskEvaluation
from components.retrieval_evaluator.two_stage_ranking import (
    RANKED,
    RETRIEVED,
    Model,
    RankingResult,
    choose_served,
)
from models.features.spec import EventWeights, FeatureSpec
from models.input.raw_examples import (
    read_candidates,
    read_catalogue_availability,
    split_files,
)
from models.ranking.tasks import label_types
from models.towers.saved_towers import SavedTowers

EVALUATION_FILE = "evaluation.json"
_BLOCK_SIZE = 512
_CANDIDATES_PER_BATCH = 4096
_REPORTED_SETTINGS = {
    *("split", "protocol", "min_history", "exclude_seen"),
    *("baseline_metric", "confidence", "resamples"),
}

# Errors raised by a model that was trained with another data set, configuration or version.
_INCOMPATIBLE = (OSError, ValueError, TypeError, KeyError, AttributeError, tf.errors.OpError)

Metrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        metrics: Metrics by ranker and name, with `exclude_seen` as configured.
        metrics_other: Rank metrics by ranker and name, with the opposite of `exclude_seen`.
        slices: Event metrics by ranker, and numbers of events and queries, by slice and value.
        intervals: Interval of `gate_metric` by ranker.
        curves: Intervals by ranker of `gate_metric` and metrics of the same kind, with each cutoff
            in `ks`.
        gate_metric: Metric of the comparisons: `baseline_metric`, or the same one with a smaller
            cutoff if that can tell rankers apart better.
        chance: Share of its best value that a random order reaches, by metric: for those that
            were considered as `gate_metric`, and for `min_metrics`.
        best_baseline: Of the comparisons with the baselines, the one whose interval has the
            smallest lower end; None without baselines.
        left_out_baselines: Why other baselines were not measured, by name.
        last_blessed: Comparison with the last blessed model; None if it was not evaluated.
        last_blessed_problem: Why the last blessed model could not be evaluated; "" if it could.
        num_evaluation_queries: Number of evaluation queries: one per query, or with the protocol
            `rolling` one per held-out event.
        num_left_out: Number of held-out events whose history is too short to be ranked.
        num_without_weight: Number of held-out events with weight 0, which are not targets.
        num_not_drawn: Number of held-out events of queries outside the sample (`max_queries`).
        num_unknown_targets: Number of held-out events whose candidate the catalogue lacks: misses
            of every ranker.
        num_unavailable_targets: Number of held-out events whose candidate is not available at the
            time of the query: misses of every ranker too.
        last_blessed_advantage: Why the last blessed model may have been trained on the held-out
            events; "" if it was not.
        cold: Shares of the cold candidates, which have no training events, in the held-out events
            (`targets`) and in the model's hits among the first k of `gate_metric` (`hits`).
        ranking: The ranking stage; None if the model has none.
    """

    metrics: Metrics
    metrics_other: Metrics
    slices: Mapping[str, Mapping[str, Any]]
    intervals: Mapping[str, Interval]
    curves: Mapping[str, Mapping[str, Interval]]
    best_baseline: Comparison | None
    last_blessed: Comparison | None
    last_blessed_problem: str
    num_queries: int
    num_evaluation_queries: int
    num_events: int
    num_left_out: int
    num_without_weight: int
    num_not_drawn: int
    num_candidates: int
    num_unknown_targets: int
    gate_metric: str
    chance: Mapping[str, float]
    num_unavailable_targets: int = 0
    last_blessed_advantage: str = ""
    left_out_baselines: Mapping[str, str] = field(default_factory=dict)
    cold: Mapping[str, float] = field(default_factory=dict)
    ranking: RankingResult | None = None

    @property
    def chance_text(self) -> str:
        """The chance levels of `gate_metric` and of those that cannot tell rankers apart."""
        if not self.chance[self.gate_metric] >= 0:
            return "no held-out event has a candidate that can be ranked"
        shares = [
            f"{share:.1%} of the best {name}"
            for name, share in self.chance.items()
            if name == self.gate_metric or share >= MAX_CHANCE
        ]
        return f"a random order reaches {', '.join(shares)}"

    def report(self, config: EvaluationConfig, gate: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of `evaluation.json`, with null for metrics that have no value."""
        settings = config.model_dump(include=_REPORTED_SETTINGS)
        measured = {**asdict(self), "chance_text": self.chance_text}
        content: dict[str, Any] = without_nan({**settings, **measured, "gate": gate})
        return content


def evaluate(
    towers: SavedTowers,
    examples_uri: str,
    spec: FeatureSpec,
    config: EvaluationConfig,
    last_blessed: str | None = None,
    *,
    weights: EventWeights | None = None,
    last_is_ranked: bool = True,
    left_out: Mapping[str, str] | None = None,
) -> tuple[Evaluation, EventResults, Samples]:
    """Rank the held-out events of `config.split` with all rankers, and compute the metrics.

    Every ranker ranks the full catalogue for the same events, once with and once without the
    history's candidates. `config` is a result of `EvaluationConfig.for_split`. `last_blessed` is
    the directory of the exported towers of the last blessed model; if it cannot be evaluated,
    `last_blessed_problem` says why. Events count by their `weights`. `last_is_ranked` is whether
    the ranking stage of the last blessed model was served, if it has one. `left_out` is the result
    of `unsuitable_baselines`.

    Raises:
        FileNotFoundError: The Examples lack a split.
        ValueError: The protocol or the baselines are not set.
    """
    if config.protocol == "auto" or config.baselines is None:
        raise ValueError("protocol and baselines depend on the split: use `for_split`")
    catalogue, held_out = (
        split_files(examples_uri, split) for split in ("candidates", config.split)
    )
    train = split_files(examples_uri, "train")
    ids, vectors = towers.embed_catalogue(catalogue)
    index_of = CandidateIndex(ids)
    sample = sample_queries(held_out, spec, config, config.queries_among(len(ids)), weights)
    training, known_queries = read_training_events(
        train, spec, index_of.add, len(ids), sample.query_ids
    )
    counts = training.counts[: len(ids)]
    candidates = partial(read_candidates, catalogue, spec, _CANDIDATES_PER_BATCH)
    model = Model.load(towers, spec, ids, vectors, candidates())
    rankers = model.rankers()
    problem = ""
    if last_blessed is not None:
        try:
            last_towers = SavedTowers(last_blessed, spec)
            last = Model(last_towers, last_towers.embed_catalogue(catalogue)[1])
            if last_is_ranked:
                last = Model.load(last_towers, spec, ids, last.vectors, candidates())
            rankers[LAST_BLESSED] = next(iter(last.rankers().values()))
        except _INCOMPATIBLE as error:
            problem = f"{last_blessed}: {str(error).strip().partition(chr(10))[0][:300]}"
    names, left_out = list(config.baselines), dict(left_out or {})
    for name in ("svd", "ease"):
        setting = f"max_{name}_candidates"
        if name in names and training.num_candidates > (limit := getattr(config, setting)):
            names.remove(name)
            left_out[name] = (
                f"there are {training.num_candidates:,} candidates, more than "
                f"`evaluation.{setting}: {limit}`"
            )
    availability = read_catalogue_availability(catalogue, spec)
    fitted = fit_baselines(names, training, spec, catalogue, held_out, index_of, availability)
    rankers |= {name: baseline_ranker(baseline) for name, baseline in fitted.items()}
    read = partial(
        read_queries,
        *(held_out, spec, config, index_of, len(ids), _BLOCK_SIZE, sample.share, weights),
        availability=availability,
    )
    results = rank_events(rankers, read(), counts, config)
    ranking = None
    if RANKED in rankers:
        metric, chance = _gate_metric(_measured(results, RANK)[RANKED], results, config)
        results, ranking = choose_served(results, metric, chance[metric], config, towers)
        tasks = model.stage.tasks if model.stage else ()
        if tasks:
            measured = TaskEvaluation(tasks, train, spec, index_of, training.num_candidates)
            blocks = read(label_types=label_types(tasks))
            ranking = replace(ranking, tasks=measured.measure(blocks, model.predict_tasks))
    evaluation = _evaluation(results, counts, known_queries, config, problem, sample)
    served = MODEL if ranking is None else RANKED if ranking.served else RETRIEVED
    samples = take_samples(
        results,
        rankers[served],
        read(),
        catalogue,
        spec,
        ids,
        vectors,
        counts,
        exclude_seen=config.exclude_seen,
    )
    evaluation = replace(evaluation, ranking=ranking, left_out_baselines=left_out)
    return evaluation, results, samples


def _evaluation(
    results: EventResults,
    train_counts: Ints,
    known_queries: frozenset[bytes],
    config: EvaluationConfig,
    problem: str,
    sample: QuerySample,
) -> Evaluation:
    lists, queries, targets, _ = (results.columns[name] for name in METRIC_COLUMNS)
    measured, measured_other = (_measured(results, prefix) for prefix in (RANK, RANK_OTHER))
    names = metric_names(config.ks)
    metrics = {
        name: ranker.values(names)
        | results.lists[name].metrics(train_counts, results.history_popularity)
        for name, ranker in measured.items()
    }
    gate_metric, chance = _gate_metric(measured[MODEL], results, config)
    family = gate_metric.partition("@")[0]
    families = EVENT_METRICS if family in EVENT_METRICS else (family,)
    cuts = [f"{name}@{k}" for name in families for k in config.ks]
    # The weights of the queries are the same with all cutoffs, and in all metrics of events.
    parts = {
        (name, metric): ranker.per_query(metric)
        for name, ranker in measured.items()
        for metric in cuts
    }
    bootstrap = PairedBootstrap(
        {key: sums for key, (sums, _) in parts.items()},
        parts[MODEL, gate_metric][1],
        config.resamples,
        config.confidence,
    )
    curves = {cut: {name: bootstrap.interval((name, cut)) for name in metrics} for cut in cuts}

    def compare(against: str, factor: float) -> Comparison:
        keys = (MODEL, gate_metric), (against, gate_metric)
        difference = bootstrap.difference(*keys, factor)
        return Comparison(gate_metric, against, factor, difference)

    baselines = [
        compare(name, config.min_lift) for name in config.baselines or () if name in metrics
    ]
    return Evaluation(
        metrics=metrics,
        metrics_other={name: ranker.values(names) for name, ranker in measured_other.items()},
        slices=slice_metrics(
            slice_labels(results, train_counts, known_queries), measured, config.ks
        ),
        intervals=curves[gate_metric],
        curves=curves,
        # A model that exceeds each baseline with this confidence exceeds the best one with it: an
        # intersection-union test, which needs no correction for their number.
        best_baseline=min(baselines, key=lambda found: found.interval.order, default=None),
        last_blessed=(
            compare(LAST_BLESSED, config.min_lift_over_last) if LAST_BLESSED in metrics else None
        ),
        last_blessed_problem=problem,
        num_queries=measured[MODEL].num_queries,
        num_evaluation_queries=len(np.unique(lists)),
        num_events=len(queries),
        num_left_out=sample.num_left_out,
        num_without_weight=sample.num_without_weight,
        num_not_drawn=sample.num_events - len(queries),
        num_candidates=len(train_counts),
        num_unknown_targets=int(np.count_nonzero(targets < 0)),
        num_unavailable_targets=int(
            np.count_nonzero((targets >= 0) & ~results.columns["is_available"])
        ),
        gate_metric=gate_metric,
        chance=chance,
        cold=_cold_shares(results, train_counts, int(gate_metric.partition("@")[2])),
    )


def _cold_shares(results: EventResults, train_counts: Ints, k: int) -> dict[str, float]:
    is_cold = candidate_labels(results.columns["target"], train_counts) == "cold"
    is_hit = results.columns[RANK + MODEL] <= k
    chosen = {"targets": is_cold, "hits": is_cold[is_hit]}
    return {name: float(of.mean()) if len(of) else float("nan") for name, of in chosen.items()}


def _measured(results: EventResults, prefix: str) -> dict[str, RankMetrics]:
    """Return the rank metrics by ranker; `prefix` is `RANK` or `RANK_OTHER`."""
    events = [results.columns[name] for name in METRIC_COLUMNS]
    return {name: RankMetrics(rank, *events) for name, rank in results.ranks(prefix).items()}


def _gate_metric(
    model: RankMetrics, results: EventResults, config: EvaluationConfig
) -> tuple[str, dict[str, float]]:
    """Return `Evaluation.gate_metric` and `Evaluation.chance`.

    The metric is the one with the smallest cutoff if none can tell rankers apart.
    """
    num_ranked = results.columns["num_ranked"]
    name, _, cut = config.baseline_metric.partition("@")
    chance: dict[str, float] = {}
    metric = config.baseline_metric
    for k in sorted((k for k in config.ks if k <= int(cut)), reverse=True):
        metric = f"{name}@{k}"
        chance[metric] = model.chance(metric, num_ranked)
        if not chance[metric] >= MAX_CHANCE:  # also if it has no value
            break
    return metric, chance | {name: model.chance(name, num_ranked) for name in config.min_metrics}
