"""Training of the ranking stage on the newest training events, which its retriever has not seen.

A ranker that learns from events that its retriever or its tables have counted is worse than none:
hit_rate@20 on shop sessions was .464 instead of .578, and .521 without a ranker.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from models.errors import DivergedError, TooFewEventsError
from models.features.spec import EVENT_TYPE_KEY, TIMESTAMP_KEY, EventWeights, FeatureSpec
from models.input.event_weights import event_weights, weight_parsing
from models.input.hold_back import HoldBack
from models.input.transformed_features import (
    dense_features,
    pad_indices,
    parsing_spec,
    type_indices,
)
from models.ranking.config import RankingConfig
from models.ranking.features import Retrieved, newest_first
from models.ranking.importance import cross_norms, measure
from models.ranking.ranker import train_ranker
from models.ranking.report import PAIR, write_report
from models.ranking.stage import NO_SCORE, RankingStage, StageSettings, save_stage
from models.ranking.tables import RankingTables, TrainingEvents
from models.training.holdout_ranks import embed_histories
from models.training.two_tower_model import TwoTowerModel

log = logging.getLogger(__name__)

_TIMELINES_PER_BATCH = 2048
_QUERIES_PER_BATCH = 256
# Maximum number of scores computed at a time: 16 million float32 take 64 MB.
_SCORES_PER_BLOCK = 16_000_000
_NUM_NEGATIVES = 100
_FEWEST_QUERIES = 100
# Share of the events on which the ranker is measured instead of trained.
_MEASURED_SHARE = 0.1

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HeldBackEvents:
    """All training events, with a mark at those that are held back from the retriever.

    Attributes:
        events: The events; candidates outside the vocabulary have the last index.
        rule: The rule that holds events back.
        num_kept: Number of events of each timeline that are not held back `[num_timelines]`.
        weights: Weight of each event `[num_events]`.
        types: Index of the type of each event, -1 if unknown `[num_events]`.
    """

    files: Sequence[str]
    events: TrainingEvents
    rule: HoldBack
    num_kept: Ints
    weights: npt.NDArray[np.float32]
    types: npt.NDArray[np.int32]

    @classmethod
    def read(
        cls,
        files: Sequence[str],
        spec: FeatureSpec,
        share: float,
        *,
        by_time: bool,
        weights: EventWeights | None = None,
    ) -> "HeldBackEvents":
        """Read transformed timelines, and hold back about `share` of their events.

        `by_time` holds back the newest events of all; otherwise, the newest of each timeline.

        Raises:
            TooFewEventsError: All events have the same time.
        """
        keys = [spec.candidate_id, TIMESTAMP_KEY]
        weights = weights or EventWeights()
        parsing = parsing_spec(keys, {}) | weight_parsing(weights)
        if spec.columns.event_types:
            parsing[EVENT_TYPE_KEY] = tf.io.RaggedFeature(tf.string, row_splits_dtype=tf.int64)
        parts = list(_read(files, parsing))
        candidates, times = (
            np.concatenate([part[key].values.numpy() for part in parts]) for key in keys
        )
        lengths = np.concatenate([part[keys[0]].row_lengths().numpy() for part in parts])
        weight_of = np.ones(len(candidates), np.float32)
        if weights.keys:
            weight_of = np.concatenate([event_weights(part, weights).numpy() for part in parts])
        events = TrainingEvents(candidates, times, np.concatenate(([0], np.cumsum(lengths))))
        rule = HoldBack.before_time(times, share) if by_time else HoldBack(share)
        num_kept = rule.num_kept(tf.RaggedTensor.from_row_splits(times, events.offsets)).numpy()
        types = np.full(len(candidates), -1, np.int32)
        if spec.columns.event_types:
            types = np.concatenate(
                [type_indices(part[EVENT_TYPE_KEY].values, spec).numpy() for part in parts]
            )
        return cls(files, events, rule, num_kept, weight_of, types)

    @property
    def before(self) -> TrainingEvents:
        """The events that are not held back."""
        return self.events.first(self.num_kept)


@dataclass(frozen=True)
class TrainedRanker:
    """A trained ranker, its settings, tables of all training events, and a report."""

    ranker: tf_keras.Model
    settings: StageSettings
    tables: RankingTables
    report: dict[str, Any]

    def save(self, directory: str) -> None:
        """Add the ranking stage to the exported towers."""
        save_stage(directory, self.settings, self.tables, self.ranker)

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

    Each of these events is predicted from all events before it, among the `selectable` candidates
    `[num_candidates]`. These must not depend on the events that are held back: if the only cold
    candidates were those that are chosen later, the ranker would learn that cold ones are best.

    Raises:
        DivergedError: The weights of the ranker are not finite.
        TooFewEventsError: The retriever finds the candidates of too few events.
    """
    started = time.process_time()
    events, size = held_back.events, model.num_candidates
    tables = RankingTables.count(held_back.before, size)
    vectors = tf.constant(model.candidates(tf.range(size)))
    stage = RankingStage(tables, lambda index: tf.gather(vectors, index), exclude_seen=exclude_seen)
    rng = np.random.default_rng(seed)
    chosen = _choose_targets(held_back, selectable, config.max_queries, rng)
    sampler = _Sampler(stage, vectors, selectable, config.num_candidates)
    samples = [
        sampler.sample(*queries, rng) for queries in _queries(model, held_back, selectable, chosen)
    ]
    found = sum(len(features) for features, _ in samples)
    if found < _FEWEST_QUERIES:
        raise TooFewEventsError(
            f"the ranker must learn from at least {_FEWEST_QUERIES} events, but of the "
            f"{len(chosen)} newest training events, the retriever finds the candidates of {found}; "
            "turn the ranker off with `ranking.enabled: false`"
        )
    features, is_candidate = (np.concatenate(part) for part in zip(*samples, strict=True))
    del samples
    # Measured on other queries than those that it learns from.
    measured = np.zeros(len(features), bool)
    measured[rng.permutation(found)[: round(_MEASURED_SHARE * found)]] = True
    tf_keras.utils.set_random_seed(seed)  # also if the retriever was trained in an earlier process
    ranker = train_ranker(features[~measured], is_candidate[~measured], config, rng)
    if not all(np.isfinite(weights).all() for weights in ranker.get_weights()):
        raise DivergedError("the weights of the ranker are not finite: its training has diverged")
    names = stage.features.names
    quality = measure(ranker, features[measured], is_candidate[measured], names, rng)
    settings = StageSettings(
        model=config.model,
        num_candidates=config.num_candidates,
        exclude_seen=exclude_seen,
        features=names,
    )
    tables = RankingTables.count(events, size)
    report = {
        "queries": len(chosen),
        "queries_with_target_found": found,
        "cpu_seconds": round(time.process_time() - started, 3),
        "measured": quality,
        "crosses": {},
    }
    if config.model == "dcn":
        cross = next(layer for layer in ranker.layers if isinstance(layer, tfrs.layers.dcn.Cross))
        columns = {name: slice(number, number + 1) for number, name in enumerate(names)}
        norms = cross_norms(cross.get_weights()[0], columns)
        report["crosses"] = {PAIR.join(pair): norm for pair, norm in norms.items()}
    log.info("trained a ranker: %s", report)
    return TrainedRanker(ranker, settings, tables, report)


def _read(
    files: Sequence[str], parsing: Mapping[str, tf.io.RaggedFeature]
) -> Iterator[dict[str, tf.RaggedTensor]]:
    records = tf.data.TFRecordDataset(list(files), compression_type="GZIP")
    yield from records.batch(_TIMELINES_PER_BATCH).map(lambda r: tf.io.parse_example(r, parsing))


def _choose_targets(
    held_back: HeldBackEvents, selectable: Bools, number: int, rng: np.random.Generator
) -> Ints:
    """Return the indices of at most `number` events that are held back, also first ones.

    Events are drawn by their weights; those with weight 0 are only part of histories.
    """
    events, num_kept = held_back.events, held_back.num_kept
    is_selectable = np.append(selectable, False)[events.candidates]
    lengths = np.diff(events.offsets)
    nth = np.arange(len(events.candidates)) - np.repeat(events.offsets[:-1], lengths)
    is_target = (nth >= np.repeat(num_kept, lengths)) & is_selectable
    targets = np.flatnonzero(is_target & (held_back.weights > 0))
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
) -> Iterator[tuple[tf.Tensor, tf.Tensor, Ints]]:
    """Yield the query vectors, histories and targets of the chosen events in batches.

    Histories are candidate indices `[batch, events]`, oldest first, and -1 for candidates that are
    not selectable: as in serving, the ranker knows only those.
    """
    spec, size, events = model.spec, model.num_candidates, held_back.events
    step = int(np.clip(_SCORES_PER_BLOCK // size, 1, _QUERIES_PER_BATCH))
    timeline = np.searchsorted(events.offsets, chosen, side="right") - 1
    first = 0
    names = [spec.query_id, *spec.context]
    for parsed in _read(held_back.files, parsing_spec(names, spec.query_features)):
        batch = {name: pad_indices(parsed[name]) for name in names}
        batch |= dense_features(parsed, spec.query_features)
        last = first + int(batch[spec.query_id].shape[0])
        mine = slice(*np.searchsorted(timeline, (first, last)))
        for start in range(mine.start, mine.stop, step):
            targets = chosen[start : min(start + step, mine.stop)]
            rows = timeline[start : start + len(targets)]
            histories, types = (
                [
                    of_event[events.offsets[row] : target].astype(np.int32)
                    for row, target in zip(rows, targets, strict=True)
                ]
                for of_event in (events.candidates, held_back.types)
            )
            in_batch = (rows - first).tolist(), histories, types
            positions = (targets - events.offsets[rows]).tolist()
            queries = embed_histories(model, batch, *in_batch, positions)
            padded = tf_keras.utils.pad_sequences(histories, padding="post", value=-1)
            # The last two are for the out-of-vocabulary index and for padding.
            history = np.where(np.append(selectable, [False, False])[padded], padded, -1)
            yield tf.constant(queries), tf.constant(history), events.candidates[targets]
        first = last


class _Sampler:
    """Makes the lists of candidates that the ranker learns from."""

    def __init__(
        self, stage: RankingStage, vectors: tf.Tensor, selectable: Bools, num_candidates: int
    ) -> None:
        num_candidates = min(num_candidates, len(selectable))
        self._num_listed = min(1 + _NUM_NEGATIVES, num_candidates)

        def find(queries: tf.Tensor, history: tf.Tensor) -> tuple[tf.Tensor, ...]:
            scores = tf.matmul(queries, vectors, transpose_b=True)
            scores = tf.where(selectable, scores, NO_SCORE)
            if stage.exclude_seen:
                seen = tf.where(history >= 0)
                cells = tf.stack(
                    [tf.cast(seen[:, 0], tf.int32), tf.gather_nd(history, seen)], axis=1
                )
                lowest = tf.fill(tf.shape(cells)[:1], NO_SCORE)
                scores = tf.tensor_scatter_nd_update(scores, cells, lowest)
            top_scores, top = tf.math.top_k(scores, num_candidates)
            recent, length = newest_first(history)
            candidates, found = stage.candidates(queries, recent, top, top_scores)
            return recent, length, top_scores, candidates, found

        signature = [tf.TensorSpec([None, vectors.shape[1]]), tf.TensorSpec([None, None], tf.int32)]
        self._find = tf.function(find, signature, autograph=False)
        self._features = tf.function(stage.features, autograph=False, reduce_retracing=True)

    def sample(
        self, queries: tf.Tensor, history: tf.Tensor, targets: Ints, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return the features of lists and masks of real candidates, for targets that are found.

        A list has the target and then other candidates at random, as in `train_ranker`.
        """
        *retrieved, candidates, scores = self._find(queries, history)
        is_real = scores.numpy() > NO_SCORE
        is_target = (candidates.numpy() == targets[:, None]) & is_real
        rows = np.flatnonzero(is_target.any(axis=1))
        keys = rng.random(is_real.shape) + 2.0 * ~is_real - 2.0 * is_target
        listed = np.argsort(keys[rows], axis=1)[:, : self._num_listed]
        features = self._features(
            Retrieved(*(tf.gather(of, rows) for of in retrieved)),
            *(tf.gather(tf.gather(of, rows), listed, batch_dims=1) for of in (candidates, scores)),
        )
        return features.numpy(), np.take_along_axis(is_real[rows], listed, axis=1)
