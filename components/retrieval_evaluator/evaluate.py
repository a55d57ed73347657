"""Measures the exported towers and the baselines on a split, exactly and over everything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.retrieval_evaluator.answers import (
    Answers,
    Contender,
    ask,
    baseline_contender,
    tower_contender,
)
from components.retrieval_evaluator.baselines.registry import make_baselines
from components.retrieval_evaluator.baselines.training_events import (
    TrainingEvents,
    read_training_events,
)
from components.retrieval_evaluator.bootstrap import Interval, PairedBootstrap
from components.retrieval_evaluator.comparison import LAST_BLESSED, MODEL, Comparison
from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.evaluation_queries import QuestionReader
from components.retrieval_evaluator.metrics import RankMetrics, metric_names
from components.retrieval_evaluator.slices import (
    candidate_labels,
    feature_labels,
    popularity_labels,
    slice_metrics,
)
from models.features.spec import FeatureSpec
from models.input.raw_examples import split_files
from models.towers.saved_towers import SavedTowers

_QUESTIONS_IN_A_BLOCK = 512

# What a model of another data set, another configuration or another version may fail with.
_UNUSABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, tf.errors.OpError)

Metrics = Mapping[str, Mapping[str, float]]
_Labels = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        metrics: Metric by name by contender, seen candidates treated as the config says.
        metrics_other: The same, treated the other way.
        slices: Metrics over events by contender, by slice by value.
        intervals: Of `baseline_metric` by contender.
        best_baseline: The model beside the baseline that is best on `baseline_metric`.
        last_blessed: The model beside the last blessed one.
        last_blessed_problem: Why the last blessed model could not be asked; "" otherwise.
        last_blessed_advantage: Why it may have been trained on what it was asked; "" otherwise.
        num_queries: Queries that were asked about.
        num_questions: Questions: as many as queries, or as events where the protocol is rolling.
        num_events: Held-out events that were asked about.
        num_left_out: Held-out events that nobody was asked about: their history is too short.
        num_not_drawn: Held-out events of queries that were not drawn (`max_questions`).
        num_candidates: Size of the catalogue.
        num_unknown_targets: Held-out events whose candidate the catalogue lacks; all are misses.
    """

    metrics: Metrics
    metrics_other: Metrics
    slices: Mapping[str, Mapping[str, Any]]
    intervals: Mapping[str, Interval]
    best_baseline: Comparison | None
    last_blessed: Comparison | None
    last_blessed_problem: str
    num_queries: int
    num_questions: int
    num_events: int
    num_left_out: int
    num_not_drawn: int
    num_candidates: int
    num_unknown_targets: int
    last_blessed_advantage: str = ""


def evaluate(
    towers: SavedTowers,
    examples_uri: str,
    spec: FeatureSpec,
    config: EvaluationConfig,
    last_blessed: str | None = None,
) -> tuple[Evaluation, Answers]:
    """Predicts the held-out events of `config.split` by `config.protocol`.

    Every contender ranks the same full catalogue for the same events, with the history's
    candidates excluded and counted.

    Args:
        towers: Asked with what a client would send.
        examples_uri: Of an Examples artifact with the splits train, candidates and `config.split`.
        spec: Ids and features.
        config: As `EvaluationConfig.for_split` returns it.
        last_blessed: Directory of the exported towers of the last blessed model. One that cannot
            be asked is no contender; `last_blessed_problem` says why.

    Returns:
        The evaluation, and what became of each held-out event.

    Raises:
        FileNotFoundError: The Examples lack a split.
    """
    if config.protocol == "auto" or config.baselines is None:
        raise ValueError("protocol and baselines depend on the split: use `for_split`")
    catalogue, held_out = (
        split_files(examples_uri, split) for split in ("candidates", config.split)
    )
    ids, vectors = towers.embed_catalogue(catalogue)
    index_of = _index(ids)
    reader = QuestionReader(spec, index_of, config, config.questions_among(len(ids)))
    draw = reader.draw(held_out)
    training, known_queries = read_training_events(
        split_files(examples_uri, "train"),
        spec,
        lambda unknown: index_of.lookup(tf.constant(unknown, tf.string)).numpy(),
        len(ids),
        draw.query_ids,
    )
    contenders: dict[str, Contender] = {MODEL: tower_contender(towers, vectors)}
    problem = ""
    if last_blessed is not None:
        probe = QuestionReader(spec, index_of, config).read(held_out, 1)
        try:
            before = SavedTowers(last_blessed, spec)
            contender = tower_contender(before, before.embed_catalogue(catalogue)[1])
            for question in probe:
                next(contender(question))
                break
            contenders[LAST_BLESSED] = contender
        except _UNUSABLE as error:
            problem = f"{last_blessed}: {str(error).strip().partition(chr(10))[0][:300]}"
    for name, baseline in make_baselines(config.baselines, training).items():
        contenders[name] = baseline_contender(baseline)
    blocks = reader.read(held_out, _QUESTIONS_IN_A_BLOCK, draw)
    answers = ask(contenders, blocks, training.counts, config)
    return _evaluation(answers, training, known_queries, config, problem, reader), answers


def _evaluation(
    answers: Answers,
    training: TrainingEvents,
    known_queries: frozenset[bytes],
    config: EvaluationConfig,
    problem: str,
    reader: QuestionReader,
) -> Evaluation:
    measured, measured_other = (
        {
            name: RankMetrics(rank, answers.questions, answers.queries, answers.is_repeated)
            for name, rank in ranks.items()
        }
        for ranks in (answers.ranks, answers.ranks_other)
    )
    metrics = _table(measured, config)
    for name, lists in answers.lists.items():
        metrics[name] |= lists.metrics(training.counts, answers.history_popularity)
    parts = {name: of.per_query(config.baseline_metric) for name, of in measured.items()}
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
            _labels(answers, training, known_queries),
            answers.ranks,
            answers.questions,
            answers.queries,
            config.ks,
        ),
        intervals={name: bootstrap.interval(name) for name in metrics},
        best_baseline=None if best is None else compare(best, config.min_lift),
        last_blessed=(
            compare(LAST_BLESSED, config.min_lift_over_last) if LAST_BLESSED in metrics else None
        ),
        last_blessed_problem=problem,
        num_queries=len(np.unique(answers.queries)),
        num_questions=len(np.unique(answers.questions)),
        num_events=len(answers.queries),
        num_left_out=reader.num_left_out,
        num_not_drawn=reader.num_not_drawn,
        num_candidates=training.num_candidates,
        num_unknown_targets=int(np.count_nonzero(answers.targets < 0)),
    )


def _table(
    measured: Mapping[str, RankMetrics], config: EvaluationConfig
) -> dict[str, dict[str, float]]:
    names = metric_names(config.ks)
    return {name: {key: of.value(key) for key in names} for name, of in measured.items()}


def _labels(
    answers: Answers, training: TrainingEvents, known_queries: frozenset[bytes]
) -> dict[str, _Labels]:
    known = np.array([query in known_queries for query in answers.query_ids], bool)
    labels: dict[str, _Labels] = {
        "query": np.where(known, "known", "new").astype(object),
        "candidate": candidate_labels(answers.targets, training.counts),
        "popularity": popularity_labels(answers.targets, training.counts),
        "repeat": np.where(answers.is_repeat, "repeat", "new").astype(object),
    }
    for name, values in answers.features.items():
        labels[f"feature {name}"] = feature_labels(values)
    return labels


def _index(ids: npt.NDArray[np.object_]) -> tf.lookup.StaticHashTable:
    keys = tf.constant(ids.tolist(), tf.string)
    positions = tf.range(len(ids), dtype=tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, positions), -1)
