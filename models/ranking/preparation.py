"""Preparation of lists to learn from: a retriever, tables, and queries that neither has seen."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from models.errors import TooFewEventsError
from models.features.spec import TIMESTAMP_KEY
from models.input.transformed_features import dense_features, pad_indices, parsing_spec
from models.ranking.config import ARCHITECTURE, RankingConfig
from models.ranking.held_back_events import HeldBackEvents, read_transformed
from models.ranking.lists import Lists, Queries, Sampler, concatenated
from models.ranking.ranker import Ranker
from models.ranking.saved_stage import StageSettings
from models.ranking.stage import RankingStage
from models.ranking.tables import RankingTables
from models.ranking.tasks import Task, TaskFeatures
from models.training.holdout_ranks import embed_histories
from models.training.two_tower_model import TwoTowerModel

_QUERIES_PER_BATCH = 256
# Maximum number of scores computed at a time: 16 million float32 take 64 MB.
_SCORES_PER_BLOCK = 16_000_000
_FEWEST_QUERIES = 100

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Preparation:
    """A retriever and tables of the events that are not held back, for one ranker or several.

    Args:
        model: The retriever, which has not seen the events that are held back.
        held_back: These events.
        selectable: The candidates to rank `[num_candidates]`. They must not depend on the events
            that are held back: if the only cold candidates were those that are chosen later, the
            ranker would learn that cold ones are best.
        config: The settings, of which only the tasks and the successors have an effect here.
        exclude_seen: See `StageSettings`.
    """

    def __init__(
        self,
        model: TwoTowerModel,
        held_back: HeldBackEvents,
        selectable: Bools,
        config: RankingConfig,
        *,
        exclude_seen: bool,
    ) -> None:
        self._model, self._held_back, self._selectable = model, held_back, selectable
        self._exclude_seen, self._successors = exclude_seen, config.successors
        size, names = model.num_candidates, tuple(config.tasks)
        self._vectors = tf.constant(model.all_candidates())
        self.tasks = tuple(
            Task.of(name, task, labels)
            for (name, task), labels in zip(config.tasks.items(), held_back.labels.T, strict=True)
        )
        task_features = None
        if self.tasks:
            found = held_back.estimates(held_back.is_kept, size)
            estimates = dict(zip(names, found, strict=True))
            task_features = TaskFeatures(self.tasks, estimates, model.spec.query_id)
        self._stage = RankingStage(
            RankingTables.count(held_back.events, size, held_back.is_kept),
            self._vectors_at,
            exclude_seen=exclude_seen,
            successors=config.successors,
            task_features=task_features,
        )
        spec = model.spec
        # With the words of texts, the ranker learns its few events by heart: ndcg@10 on other
        # events of MovieLens 100K was .136 instead of .150.
        self._declared = {
            name: model.sizes.features.get(name, 0)
            for name, feature in {**spec.query_features, **spec.candidate_features}.items()
            if feature.kind in ("categorical", "numeric", "datetime")
        }

    def settings(self, config: RankingConfig) -> StageSettings:
        """Return the settings of a stage with such a ranker."""
        return StageSettings(
            **config.model_dump(include=ARCHITECTURE),
            num_candidates=config.num_candidates,
            exclude_seen=self._exclude_seen,
            successors=self._successors,
            features=self._stage.names,
            declared=self._declared,
            tasks=self.tasks,
        )

    def make_ranker(self, config: RankingConfig) -> Ranker:
        """Return a ranker with random weights."""
        features = self._model.spec.features
        return Ranker(config, self._stage.names, features, self._declared, self.tasks)

    def choose_targets(self, number: int, rng: np.random.Generator) -> Ints:
        """Return the indices of at most `number` events that are held back, also first ones.

        Events are drawn by their weights; those with weight 0 are only part of histories.
        """
        held_back = self._held_back
        is_selectable = np.append(self._selectable, False)[held_back.events.candidates]
        targets = np.flatnonzero(~held_back.is_kept & is_selectable & (held_back.weights > 0))
        weights = held_back.weights[targets].astype(np.float64)
        if len(np.unique(weights)) > 1:
            # With replacement, so that weights have an effect if there are few events too.
            drawn = rng.choice(targets, min(number, len(targets)), p=weights / weights.sum())
            targets = np.sort(drawn)
        elif len(targets) > number:
            targets = np.sort(rng.choice(targets, number, replace=False))
        return targets

    def make_lists(self, targets: Ints, num_candidates: int, rng: np.random.Generator) -> Lists:
        """Return lists of the targets and of other candidates that the retriever finds.

        Raises:
            TooFewEventsError: The retriever finds too few targets.
        """
        sampler = self._sampler(num_candidates)
        samples = [sampler.sample(queries, rng) for queries in self._queries(targets)]
        found = sum(int(lists.is_found.sum()) for lists in samples)
        if found < _FEWEST_QUERIES:
            raise TooFewEventsError(
                f"the ranker must learn from at least {_FEWEST_QUERIES} events, but of the "
                f"{len(targets)} that are held back, the retriever finds the candidates of "
                f"{found}; turn the ranker off with `ranking.enabled: false`"
            )
        return concatenated(samples)

    def ranks(self, ranker: Ranker, targets: Ints, num_candidates: int) -> Ints:
        """Return the rank, from 1, of each target in the served order of all candidates.

        Targets that the retriever does not find have the largest integer.
        """
        embedded = ranker.of_candidates(self._model.candidate_features)
        vectors = np.concatenate(embedded, axis=1) if embedded else None
        stage = self._stage.with_ranker(ranker, vectors)
        sampler = self._sampler(num_candidates)
        found = [sampler.ranks(stage, queries) for queries in self._queries(targets)]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def _vectors_at(self, index: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._vectors, index)

    def _sampler(self, num_candidates: int) -> Sampler:
        return Sampler(
            self._stage,
            self._vectors,
            self._selectable,
            num_candidates,
            self._model.availability,
        )

    def _queries(self, chosen: Ints) -> Iterator[Queries]:
        """Yield the queries of the chosen events in batches.

        Their histories have -1 for candidates that are not selectable: as in serving, the
        ranker knows only those.
        """
        model, held_back, selectable = self._model, self._held_back, self._selectable
        spec, size, events = model.spec, model.num_candidates, held_back.events
        step = int(np.clip(_SCORES_PER_BLOCK // size, 1, _QUERIES_PER_BATCH))
        timeline = np.searchsorted(events.offsets, chosen, side="right") - 1
        first = 0
        names = [spec.query_id, *spec.context]
        times = [] if model.query_tower.age is None else [TIMESTAMP_KEY]
        parsing = parsing_spec([*names, *times], spec.query_features)
        for parsed in read_transformed(held_back.files, parsing):
            batch = {name: pad_indices(parsed[name]) for name in names}
            batch |= dense_features(parsed, spec.query_features)
            batch |= {name: parsed[name].to_tensor() for name in times}
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
                    events.times[targets],
                    targets,
                )
            first = last
