"""The training events that are held back from the retriever, and their labels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.features.spec import EVENT_TYPE_KEY, TIMESTAMP_KEY, EventWeights, FeatureSpec
from models.input.event_weights import event_weights, weight_parsing
from models.input.hold_back import HoldBack, SplitMethod
from models.input.transformed_features import parsing_spec, type_indices
from models.ranking.config import RankingConfig
from models.ranking.estimates import Estimates
from models.ranking.tables import TrainingEvents
from models.ranking.tasks import label_key, label_types, labels_of

_TIMELINES_PER_BATCH = 2048

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HeldBackEvents:
    """All training events, with a mark at those that are held back from the retriever.

    Attributes:
        events: The events; candidates outside the vocabulary have the last index.
        rule: The rule that holds events back.
        is_kept: Whether an event is not held back `[num_events]`.
        queries: The index of the query of each event `[num_events]`; 0 without tasks.
        labels: The labels of the tasks of each event, NaN if unknown `[num_events, num_tasks]`.
        weights: Weight of each event `[num_events]`.
        types: Index of the type of each event, -1 if unknown `[num_events]`.
    """

    files: Sequence[str]
    events: TrainingEvents
    rule: HoldBack
    is_kept: npt.NDArray[np.bool_]
    queries: Ints
    labels: Floats
    weights: Floats
    types: npt.NDArray[np.int32]

    @classmethod
    def read(
        cls,
        files: Sequence[str],
        spec: FeatureSpec,
        config: RankingConfig,
        split: SplitMethod,
        weights: EventWeights | None = None,
    ) -> "HeldBackEvents":
        """Read transformed timelines, and hold back some of their events for a `split`.

        Raises:
            TooFewEventsError: temporal: all events have the same time.
        """
        tasks = config.tasks.values()
        keys = [spec.candidate_id, TIMESTAMP_KEY, spec.query_id]
        weights, columns = weights or EventWeights(), label_types(tasks)
        if spec.columns.event_types:
            columns[EVENT_TYPE_KEY] = tf.string
        parsing = parsing_spec(keys, {}) | weight_parsing(weights)
        for key, dtype in columns.items():
            parsing[key] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        parts = list(read_transformed(files, parsing))

        def flat(key: str) -> npt.NDArray[Any]:
            values: npt.NDArray[Any] = np.concatenate([part[key].values.numpy() for part in parts])
            return values

        candidates, times = flat(keys[0]), flat(keys[1])
        lengths = np.concatenate([part[spec.candidate_id].row_lengths() for part in parts])
        events = TrainingEvents(candidates, times, np.concatenate(([0], np.cumsum(lengths))))
        rule = HoldBack.of(split, config.held_back_fraction, times)
        labels = [labels_of(task, flat(label_key(task))) for task in tasks]
        shape = candidates.shape
        weight_of, queries = np.broadcast_to(np.float32(1.0), shape), np.broadcast_to(0, shape)
        if tasks:
            queries = np.repeat(flat(keys[2]), lengths)
        if weights.keys:
            weight_of = np.concatenate([event_weights(part, weights).numpy() for part in parts])
        types = np.broadcast_to(np.int32(-1), shape)
        if spec.columns.event_types:
            types = np.concatenate(
                [type_indices(part[EVENT_TYPE_KEY].values, spec).numpy() for part in parts]
            )
        ragged = (tf.RaggedTensor.from_row_splits(of, events.offsets) for of in (times, candidates))
        return cls(
            files,
            events,
            rule,
            rule.is_kept(*ragged).values.numpy(),
            queries,
            np.stack(labels, axis=1) if labels else np.zeros((len(times), 0), np.float32),
            weight_of,
            types,
        )

    def estimates(self, mask: npt.NDArray[np.bool_], size: int) -> list[Estimates]:
        """Return the estimates of each task from the events of a mask with known candidates."""
        found = []
        for labels in self.labels.T:
            known = mask & np.isfinite(labels) & (self.events.candidates < size)
            estimates = Estimates.fit(
                self.queries[known],
                self.events.candidates[known],
                labels[known],
                num_queries=int(self.queries.max(initial=-1)) + 1,
                num_candidates=size,
            )
            found.append(estimates)
        return found

    def history(self, timeline: int, target: int) -> Ints:
        """Return the indices of the events from which the event `target` is predicted.

        As in the evaluation, these are all events of its timeline that are not held back if the
        split is random, and otherwise all earlier ones.
        """
        events = np.arange(*self.events.offsets[timeline : timeline + 2])
        known: Ints = events[
            self.is_kept[events] if self.rule.split == "random" else events < target
        ]
        return known

    @property
    def before(self) -> TrainingEvents:
        """The events that are not held back."""
        return self.events.where(self.is_kept)


def read_transformed(
    files: Sequence[str], parsing: Mapping[str, tf.io.RaggedFeature]
) -> Iterator[dict[str, tf.RaggedTensor]]:
    """Yield batches of transformed timelines."""
    records = tf.data.TFRecordDataset(list(files), compression_type="GZIP")
    yield from records.batch(_TIMELINES_PER_BATCH).map(lambda r: tf.io.parse_example(r, parsing))
