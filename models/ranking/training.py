"""Training of the ranking stage on training events that its retriever has not seen.

A ranker that learns from events that its retriever or its tables have counted is worse than none:
hit_rate@20 on shop sessions was .464 instead of .578, and .521 without a ranker.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from models.errors import DivergedError, TooFewEventsError
from models.input.transformed_features import dense_features, pad_indices, parsing_spec
from models.ranking.config import RankingConfig
from models.ranking.estimates import Estimates
from models.ranking.held_back_events import HeldBackEvents, read_transformed
from models.ranking.importance import cross_norms, measure
from models.ranking.lists import Lists, Queries, Sampler, concatenated
from models.ranking.ranker import Ranker, shrink_corrections, train_ranker
from models.ranking.report import PAIR, write_report
from models.ranking.saved_stage import StageSettings, save_stage
from models.ranking.stage import RankingStage
from models.ranking.tables import RankingTables
from models.ranking.tasks import Task, TaskFeatures
from models.training.holdout_ranks import embed_histories
from models.training.two_tower_model import TwoTowerModel

log = logging.getLogger(__name__)

_QUERIES_PER_BATCH = 256
# Maximum number of scores computed at a time: 16 million float32 take 64 MB.
_SCORES_PER_BLOCK = 16_000_000
_FEWEST_QUERIES = 100
# Share of the events on which the ranker is measured instead of trained.
_MEASURED_SHARE = 0.1

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TrainedRanker:
    """A trained ranker, its settings, tables of all training events, and a report."""

    ranker: Ranker
    settings: StageSettings
    tables: RankingTables
    estimates: Mapping[str, Estimates]
    report: dict[str, Any]

    def save(self, directory: str) -> None:
        """Add the ranking stage to the exported towers."""
        save_stage(directory, self.settings, self.tables, self.estimates, self.ranker)

    def save_report(self, directory: str) -> None:
        """Write the report and the importance of the features."""
        write_report(self.report, directory)


def train_ranking_stage(
    model: TwoTowerModel,
    held_back: HeldBackEvents,
    selectable: Bools,
    config: RankingConfig,
    *,
    exclude_seen: bool,
    seed: int,
) -> TrainedRanker:
    """Train a ranker on the events that were held back from the retriever `model`.

    Each of these events is predicted from others of its timeline, among the `selectable` candidates
    `[num_candidates]`. These must not depend on the events that are held back: if the only cold
    candidates were those that are chosen later, the ranker would learn that cold ones are best.

    Raises:
        DivergedError: The weights of the ranker are not finite.
        TooFewEventsError: The retriever finds the candidates of too few events.
    """
    started = time.process_time()
    size = model.num_candidates
    tables = RankingTables.count(held_back.before, size)
    vectors = tf.constant(model.candidates(tf.range(size)))
    names = tuple(config.tasks)
    tasks = tuple(
        Task.of(name, task, labels)
        for (name, task), labels in zip(config.tasks.items(), held_back.labels.T, strict=True)
    )
    task_features = None
    if tasks:
        estimates = dict(zip(names, held_back.estimates(held_back.is_kept, size), strict=True))
        task_features = TaskFeatures(tasks, estimates, model.spec.query_id)
    stage = RankingStage(
        tables,
        lambda index: tf.gather(vectors, index),
        exclude_seen=exclude_seen,
        task_features=task_features,
    )
    rng = np.random.default_rng(seed)
    chosen = _choose_targets(held_back, selectable, config.max_queries, rng)
    sampler = Sampler(stage, vectors, selectable, config.num_candidates)
    lists = _make_lists(_queries(model, held_back, selectable, chosen), len(chosen), sampler, rng)
    # Measured on other queries than those that it learns from.
    number = len(lists.is_found)
    measured = np.zeros(number, bool)
    measured[rng.permutation(number)[: round(_MEASURED_SHARE * number)]] = True
    tf_keras.utils.set_random_seed(seed)  # also if the retriever was trained in an earlier process
    spec = model.spec
    # With the words of texts, the ranker learns its few events by heart: ndcg@10 on other events of
    # MovieLens 100K was .136 instead of .150.
    declared = {
        name: model.sizes.features.get(name, 0)
        for name, feature in {**spec.query_features, **spec.candidate_features}.items()
        if feature.kind in ("categorical", "numeric")
    }
    ranker = Ranker(config.model, stage.names, spec.features, declared, tasks)
    train_ranker(ranker, lists.take(~measured), model.candidate_features, config, rng)
    if not all(np.isfinite(weights).all() for weights in ranker.get_weights()):
        raise DivergedError("the weights of the ranker are not finite: its training has diverged")
    shares = shrink_corrections(ranker, lists.take(measured), model.candidate_features)
    number_found = int(lists.is_found.sum())
    lists = lists.take(measured & lists.is_found)
    inputs = ranker.inputs_of(lists, model.candidate_features).numpy()
    quality = measure(
        lambda of: ranker.predict(of)[0], inputs, lists.is_candidate, ranker.columns, rng
    )
    settings = StageSettings(
        model=config.model,
        num_candidates=config.num_candidates,
        exclude_seen=exclude_seen,
        features=stage.names,
        declared=declared,
        tasks=tasks,
    )
    tables = RankingTables.count(held_back.events, size)
    everything = held_back.estimates(np.ones_like(held_back.is_kept), size)
    report = {
        "queries": len(chosen),
        "queries_with_target_found": number_found,
        "corrections": shares,
        "cpu_seconds": round(time.process_time() - started, 3),
        "measured": quality,
        "crosses": {},
    }
    if config.model == "dcn":
        layers = ranker.network.layers
        cross = next(layer for layer in layers if isinstance(layer, tfrs.layers.dcn.Cross))
        norms = cross_norms(cross.get_weights()[0], ranker.columns)
        report["crosses"] = {PAIR.join(pair): norm for pair, norm in norms.items()}
    log.info("trained a ranker: %s", report)
    estimates = dict(zip(names, everything, strict=True))
    return TrainedRanker(ranker, settings, tables, estimates, report)


def _make_lists(
    batches: Iterator[Queries], number: int, sampler: Sampler, rng: np.random.Generator
) -> Lists:
    """Return lists for a number of queries in batches.

    Raises:
        TooFewEventsError: The retriever finds the candidates of too few events.
    """
    samples = [sampler.sample(queries, rng) for queries in batches]
    found = sum(int(lists.is_found.sum()) for lists in samples)
    if found < _FEWEST_QUERIES:
        raise TooFewEventsError(
            f"the ranker must learn from at least {_FEWEST_QUERIES} events, but of the "
            f"{number} that are held back, the retriever finds the candidates of {found}; "
            "turn the ranker off with `ranking.enabled: false`"
        )
    return concatenated(samples)


def _choose_targets(
    held_back: HeldBackEvents, selectable: Bools, number: int, rng: np.random.Generator
) -> Ints:
    """Return the indices of at most `number` events that are held back, also first ones.

    Events are drawn by their weights; those with weight 0 are only part of histories.
    """
    is_selectable = np.append(selectable, False)[held_back.events.candidates]
    targets = np.flatnonzero(~held_back.is_kept & is_selectable & (held_back.weights > 0))
    weights = held_back.weights[targets].astype(np.float64)
    if len(np.unique(weights)) > 1:
        # With replacement, so that weights have an effect if there are few events too.
        drawn = rng.choice(targets, min(number, len(targets)), p=weights / weights.sum())
        targets = np.sort(drawn)
    elif len(targets) > number:
        targets = np.sort(rng.choice(targets, number, replace=False))
    return targets


def _queries(
    model: TwoTowerModel, held_back: HeldBackEvents, selectable: Bools, chosen: Ints
) -> Iterator[Queries]:
    """Yield the queries of the chosen events in batches.

    Their histories have -1 for candidates that are not selectable: as in serving, the ranker knows
    only those.
    """
    spec, size, events = model.spec, model.num_candidates, held_back.events
    step = int(np.clip(_SCORES_PER_BLOCK // size, 1, _QUERIES_PER_BATCH))
    timeline = np.searchsorted(events.offsets, chosen, side="right") - 1
    first = 0
    names = [spec.query_id, *spec.context]
    for parsed in read_transformed(held_back.files, parsing_spec(names, spec.query_features)):
        batch = {name: pad_indices(parsed[name]) for name in names}
        batch |= dense_features(parsed, spec.query_features)
        last = first + int(batch[spec.query_id].shape[0])
        mine = slice(*np.searchsorted(timeline, (first, last)))
        for start in range(mine.start, mine.stop, step):
            targets = chosen[start : min(start + step, mine.stop)]
            rows = timeline[start : start + len(targets)]
            read = [held_back.history(*each) for each in zip(rows, targets, strict=True)]
            histories, types = (
                [of_event[events_of].astype(np.int32) for events_of in read]
                for of_event in (events.candidates, held_back.types)
            )
            in_batch = (rows - first).tolist(), histories, types
            positions = (targets - events.offsets[rows]).tolist()
            queries = embed_histories(model, batch, *in_batch, positions)
            padded = tf_keras.utils.pad_sequences(histories, padding="post", value=-1)
            # The last two are for the out-of-vocabulary index and for padding.
            history = np.where(np.append(selectable, [False, False])[padded], padded, -1)
            of_query = (spec.query_id, *spec.query_features)
            known = {name: batch[name].numpy()[rows - first] for name in of_query}
            yield Queries(
                tf.constant(queries),
                tf.constant(history),
                known,
                events.candidates[targets],
                held_back.labels[targets],
            )
        first = last
