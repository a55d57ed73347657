"""Evaluates the exported towers and the baselines on a split, over the full catalogue."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.retrieval_evaluator.baselines.training_events import (
    TrainingEvents,
    read_training_events,
)
from components.retrieval_evaluator.bootstrap import Comparison, Interval, PairedBootstrap
from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.evaluation_queries import EvaluationQueryReader
from components.retrieval_evaluator.event_results import EventResults, rank_events
from components.retrieval_evaluator.metrics import RankMetrics, metric_names
from components.retrieval_evaluator.rankers import (
    LAST_BLESSED,
    MODEL,
    Ranker,
    baseline_ranker,
    make_baselines,
    towers_ranker,
)
from components.retrieval_evaluator.slices import (
    candidate_labels,
    feature_labels,
    popularity_labels,
    slice_metrics,
)
from models.features.spec import FeatureSpec
from models.input.raw_examples import split_files
from models.towers.saved_towers import SavedTowers

EVALUATION_FILE = "evaluation.json"

_BLOCK_SIZE = 512

# Errors raised by a model that was trained with another data set, configuration or version.
_INCOMPATIBLE = (OSError, ValueError, TypeError, KeyError, AttributeError, tf.errors.OpError)

Metrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        metrics: For each ranker, metrics by name, with `exclude_seen` as configured.
        metrics_other: For each ranker, rank metrics by name, with the opposite of `exclude_seen`.
        slices: For each slice and value, event metrics by ranker, and numbers of events and
            queries.
        intervals: Interval of `baseline_metric` by ranker.
        best_baseline: Comparison with the best baseline; None without baselines.
        last_blessed: Comparison with the last blessed model; None if it was not evaluated.
        last_blessed_problem: Why the last blessed model could not be evaluated; "" if it could.
        num_evaluation_queries: Number of evaluation queries: one per query, or with the protocol
            `rolling` one per held-out event.
        num_left_out: Number of held-out events that were not ranked because their history is too
            short.
        num_not_drawn: Number of held-out events of queries outside the sample (`max_queries`).
        num_unknown_targets: Number of held-out events whose candidate the catalogue lacks; all are
            misses.
        last_blessed_advantage: Why the last blessed model may have been trained on the held-out
            events; "" if it was not.
    """

    metrics: Metrics
    metrics_other: Metrics
    slices: Mapping[str, Mapping[str, Any]]
    intervals: Mapping[str, Interval]
    best_baseline: Comparison | None
    last_blessed: Comparison | None
    last_blessed_problem: str
    num_queries: int
    num_evaluation_queries: int
    num_events: int
    num_left_out: int
    num_not_drawn: int
    num_candidates: int
    num_unknown_targets: int
    last_blessed_advantage: str = ""

    def report(self, config: EvaluationConfig, gate: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of `evaluation.json`."""
        return {
            "split": config.split,
            "protocol": config.protocol,
            "min_history": config.min_history,
            "exclude_seen": config.exclude_seen,
            "baseline_metric": config.baseline_metric,
            "confidence": config.confidence,
            "resamples": config.resamples,
            **asdict(self),
            "gate": gate,
        }


def evaluate(
    towers: SavedTowers,
    examples_uri: str,
    spec: FeatureSpec,
    config: EvaluationConfig,
    last_blessed: str | None = None,
) -> tuple[Evaluation, EventResults]:
    """Rank the held-out events of `config.split` with all rankers, and compute the metrics.

    Every ranker ranks the full catalogue for the same events, once with and once without the
    history's candidates.

    Args:
        towers: Towers of the model.
        examples_uri: URI of Examples with the splits train, candidates and `config.split`.
        spec: IDs and features.
        config: Settings, as returned by `EvaluationConfig.for_split`.
        last_blessed: Directory of the exported towers of the last blessed model. If it cannot be
            evaluated, `last_blessed_problem` says why.

    Raises:
        FileNotFoundError: The Examples lack a split.
        ValueError: The protocol or the baselines are not set.
    """
    if config.protocol == "auto" or config.baselines is None:
        raise ValueError("protocol and baselines depend on the split: use `for_split`")
    catalogue, held_out = (
        split_files(examples_uri, split) for split in ("candidates", config.split)
    )
    ids, vectors = towers.embed_catalogue(catalogue)
    index_of = _index(ids)
    reader = EvaluationQueryReader(spec, index_of, config)
    sample = reader.sample(held_out, config.queries_among(len(ids)))
    training, known_queries = read_training_events(
        split_files(examples_uri, "train"),
        spec,
        lambda unknown: index_of.lookup(tf.constant(unknown, tf.string)).numpy(),
        len(ids),
        sample.query_ids,
    )
    rankers: dict[str, Ranker] = {MODEL: towers_ranker(towers, vectors)}
    problem = ""
    if last_blessed is not None:
        first_query = EvaluationQueryReader(spec, index_of, config).read(held_out, 1)
        try:
            last_towers = SavedTowers(last_blessed, spec)
            ranker = towers_ranker(last_towers, last_towers.embed_catalogue(catalogue)[1])
            for block in first_query:
                next(ranker(block))
                break
            rankers[LAST_BLESSED] = ranker
        except _INCOMPATIBLE as error:
            problem = f"{last_blessed}: {str(error).strip().partition(chr(10))[0][:300]}"
    for name, baseline in make_baselines(config.baselines, training).items():
        rankers[name] = baseline_ranker(baseline)
    blocks = reader.read(held_out, _BLOCK_SIZE, sample)
    results = rank_events(rankers, blocks, training.counts, config)
    return _evaluation(results, training, known_queries, config, problem, reader), results


def _evaluation(
    results: EventResults,
    training: TrainingEvents,
    known_queries: frozenset[bytes],
    config: EvaluationConfig,
    problem: str,
    reader: EvaluationQueryReader,
) -> Evaluation:
    measured, measured_other = (
        {
            name: RankMetrics(
                rank, results.evaluation_queries, results.queries, results.is_repeated
            )
            for name, rank in ranks.items()
        }
        for ranks in (results.ranks, results.ranks_other)
    )
    metrics = _table(measured, config)
    for name, lists in results.lists.items():
        metrics[name] |= lists.metrics(training.counts, results.history_popularity)
    parts = {name: ranker.per_query(config.baseline_metric) for name, ranker in measured.items()}
    bootstrap = PairedBootstrap(
        {name: sums for name, (sums, _) in parts.items()},
        parts[MODEL][1],
        config.resamples,
        config.confidence,
    )

    def compare(against: str, factor: float) -> Comparison:
        difference = bootstrap.difference(MODEL, against, factor)
        return Comparison(config.baseline_metric, against, factor, difference)

    baselines = [name for name in metrics if name not in (MODEL, LAST_BLESSED)]
    best = max(baselines, key=lambda name: metrics[name][config.baseline_metric], default=None)
    return Evaluation(
        metrics=metrics,
        metrics_other=_table(measured_other, config),
        slices=slice_metrics(
            _labels(results, training, known_queries),
            results.ranks,
            results.evaluation_queries,
            results.queries,
            config.ks,
        ),
        intervals={name: bootstrap.interval(name) for name in metrics},
        best_baseline=None if best is None else compare(best, config.min_lift),
        last_blessed=(
            compare(LAST_BLESSED, config.min_lift_over_last) if LAST_BLESSED in metrics else None
        ),
        last_blessed_problem=problem,
        num_queries=len(np.unique(results.queries)),
        num_evaluation_queries=len(np.unique(results.evaluation_queries)),
        num_events=len(results.queries),
        num_left_out=reader.num_left_out,
        num_not_drawn=reader.num_not_drawn,
        num_candidates=training.num_candidates,
        num_unknown_targets=int(np.count_nonzero(results.targets < 0)),
    )


def _table(
    measured: Mapping[str, RankMetrics], config: EvaluationConfig
) -> dict[str, dict[str, float]]:
    names = metric_names(config.ks)
    return {name: {key: of.value(key) for key in names} for name, of in measured.items()}


def _labels(
    results: EventResults, training: TrainingEvents, known_queries: frozenset[bytes]
) -> dict[str, npt.NDArray[np.object_]]:
    known = np.array([query in known_queries for query in results.query_ids], bool)
    labels = {
        "query": np.where(known, "known", "new").astype(object),
        "candidate": candidate_labels(results.targets, training.counts),
        "popularity": popularity_labels(results.targets, training.counts),
        "repeat": np.where(results.is_repeat, "repeat", "new").astype(object),
    }
    return labels | {f"feature {name}": feature_labels(v) for name, v in results.features.items()}


def _index(ids: npt.NDArray[np.object_]) -> tf.lookup.StaticHashTable:
    keys = tf.constant(ids.tolist(), tf.string)
    indices = tf.range(len(ids), dtype=tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, indices), -1)
