"""Readers of the raw Examples that ingestion writes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.features.spec import (
    EVENT_TYPE_KEY,
    HISTORY_KEY,
    HISTORY_TYPES_KEY,
    IS_TARGET_KEY,
    MISSING_TIME,
    TIME_KEY,
    TIMESTAMP_KEY,
    EventWeights,
    FeatureConfig,
    FeatureSpec,
)
from models.input.availability import Availability
from models.input.event_weights import event_weights, weight_parsing
from models.input.raw_inputs import catalogue_inputs, missing_value, query_inputs

_EXAMPLES_PER_COUNT = 4096
# Larger parts would not be faster, and glibc keeps up to 64 MB of them for each thread.
_EXAMPLES_PER_PARSE = 512


@dataclass(frozen=True)
class RawTimelines:
    """A batch of timelines, split into histories and held-out targets.

    Attributes:
        inputs: Inputs of the served signature (`models.input.raw_inputs.query_inputs`), including
            the history, which consists of the events that are not held out, and the context and
            the time of the newest event.
        targets: Held-out candidate IDs, `[batch, (events)]`.
        events: Candidate IDs of all events, `[batch, (events)]`, oldest first.
        is_target: 1 for each held-out element of `events`, `[batch, (events)]`.
        context: Values of the context of each element of `events`, by name, `[batch, (events)]`.
        types: Event type of each element of `events`, or None without types `[batch, (events)]`.
        weights: Weight of each element of `events`, flat `[num_events]`.
        times: Epoch seconds of `events`, `[batch, (events)]`; None without timestamps.
        labels: Other columns of `events` by key, `[batch, (events)]`.
    """

    inputs: Mapping[str, tf.Tensor]
    targets: tf.RaggedTensor
    events: tf.RaggedTensor
    is_target: tf.RaggedTensor
    context: Mapping[str, tf.RaggedTensor]
    types: tf.RaggedTensor | None
    weights: tf.Tensor
    labels: Mapping[str, tf.RaggedTensor]
    times: tf.RaggedTensor | None = None


def read_timelines(
    files: Sequence[str],
    spec: FeatureSpec,
    batch_size: int,
    weights: EventWeights | None = None,
    label_types: Mapping[str, tf.DType] | None = None,
) -> Iterator[RawTimelines]:
    """Yield batches of the timelines in `files`, which are GZIP TFRecords of raw Examples.

    `label_types` are the types of `RawTimelines.labels`; by default, there are none.
    """
    weights, label_types = weights or EventWeights(), label_types or {}
    parsing = {
        spec.query_id: tf.io.RaggedFeature(tf.string),
        spec.candidate_id: tf.io.RaggedFeature(tf.string),
        IS_TARGET_KEY: tf.io.RaggedFeature(tf.int64),
        **{key: tf.io.RaggedFeature(of) for key, of in label_types.items()},
        **parsing_of_features(spec.query_features),
        **parsing_of_features(spec.context),
        **weight_parsing(weights),
    }
    if spec.columns.timestamp:
        parsing[TIMESTAMP_KEY] = tf.io.RaggedFeature(tf.int64)
    if spec.columns.event_type:
        parsing[EVENT_TYPE_KEY] = tf.io.RaggedFeature(tf.string)
    for parsed in _parsed(files, parsing, batch_size):
        times = parsed.pop(TIMESTAMP_KEY, None)
        labels = {key: parsed[key] for key in label_types}
        events, is_target = parsed.pop(spec.candidate_id), parsed.pop(IS_TARGET_KEY)
        event_weight = (
            event_weights(parsed, weights) if weights.keys else tf.ones(tf.shape(events.values))
        )
        context = {name: parsed.pop(name) for name in spec.context}
        newest = {name: values[:, -1:] for name, values in context.items()}
        if spec.availability:
            newest[TIME_KEY] = times[:, -1:]
        inputs = padded_inputs({**parsed, **newest}, query_inputs(spec))
        inputs[HISTORY_KEY] = tf.ragged.boolean_mask(events, is_target == 0).to_tensor("")
        targets = tf.ragged.boolean_mask(events, is_target == 1)
        types = parsed.get(EVENT_TYPE_KEY)
        if spec.columns.event_types:
            known = tf.ragged.boolean_mask(types, is_target == 0)
            inputs[HISTORY_TYPES_KEY] = known.to_tensor("")
        yield RawTimelines(
            inputs, targets, events, is_target, context, types, event_weight, labels, times
        )


class RawEvents(NamedTuple):
    """The events of a batch of timelines as flat arrays, one timeline after another.

    `queries` are the query IDs `[batch]`, and `candidates` the candidate IDs `[num_events]`.
    `times` are epoch seconds `[num_events]`, or None without timestamps. `offsets` `[batch + 1]`
    are the start of each timeline and the end of the last.
    """

    queries: npt.NDArray[np.object_]
    candidates: npt.NDArray[np.object_]
    times: npt.NDArray[np.int64] | None
    offsets: npt.NDArray[np.int64]


def read_events(files: Sequence[str], spec: FeatureSpec, batch_size: int) -> Iterator[RawEvents]:
    """Yield the events of the timelines in `files`, `batch_size` timelines at a time."""
    parsing: dict[str, object] = {
        spec.query_id: tf.io.FixedLenFeature([], tf.string),
        spec.candidate_id: tf.io.RaggedFeature(tf.string),
    }
    if spec.columns.timestamp:
        parsing[TIMESTAMP_KEY] = tf.io.RaggedFeature(tf.int64)
    for parsed in _parsed(files, parsing, batch_size):
        events = parsed[spec.candidate_id]
        times = parsed[TIMESTAMP_KEY].values.numpy() if spec.columns.timestamp else None
        offsets = events.row_splits.numpy()
        yield RawEvents(parsed[spec.query_id].numpy(), events.values.numpy(), times, offsets)


def read_candidates(
    files: Sequence[str], spec: FeatureSpec, batch_size: int, block: slice = slice(None)
) -> Iterator[dict[str, tf.Tensor]]:
    """Yield batches of the catalogue as inputs (`models.input.raw_inputs.catalogue_inputs`).

    `block` is the range of candidates to read, counted over all files.
    """
    parsing = {
        spec.candidate_id: tf.io.RaggedFeature(tf.string),
        **parsing_of_features(spec.catalogue_features),
    }
    for parsed in _parsed(files, parsing, batch_size, block):
        yield padded_inputs(parsed, catalogue_inputs(spec))


def read_catalogue_availability(files: Sequence[str], spec: FeatureSpec) -> Availability | None:
    """Return the availability of the candidates in `files`, None if there are no columns."""
    if not spec.availability:
        return None
    parts = list(_parsed(files, parsing_of_features(spec.availability), _EXAMPLES_PER_PARSE))
    columns = {
        name: tf.concat([part[name].to_tensor(MISSING_TIME, [None, 1])[:, 0] for part in parts], 0)
        for name in spec.availability
    }
    return Availability.of(columns, len(next(iter(columns.values()))))


def count_examples(file: str) -> int:
    """Return the number of Examples in a GZIP TFRecord file."""
    records = tf.data.TFRecordDataset([file], compression_type="GZIP").batch(_EXAMPLES_PER_COUNT)
    return sum(int(batch.shape[0]) for batch in records)


def split_files(uri: str, split: str) -> list[str]:
    """Return the files of a split of an Examples artifact.

    Raises:
        FileNotFoundError: The artifact lacks the split.
    """
    files: list[str] = sorted(tf.io.gfile.glob(f"{uri}/Split-{split}/*"))
    if not files:
        raise FileNotFoundError(f"the split {split!r} must have files, but {uri} has none of it")
    return files


def parse_files(
    files: Sequence[str], parsing: Mapping[str, object]
) -> Iterator[dict[str, tf.RaggedTensor]]:
    """Yield the rows of GZIP TFRecord files in parts, parsed with the features of `parsing`."""
    return _parsed(files, parsing, _EXAMPLES_PER_PARSE)


def parsing_of_features(features: Mapping[str, FeatureConfig]) -> dict[str, tf.io.RaggedFeature]:
    """Return how `tf.io.parse_example` parses features, as ragged rows."""
    return {
        name: tf.io.RaggedFeature(tf.as_dtype(feature.dtype)) for name, feature in features.items()
    }


def _parsed(
    files: Sequence[str], parsing: Mapping[str, object], batch_size: int, block: slice = slice(None)
) -> Iterator[dict[str, tf.Tensor]]:
    first = block.start or 0
    records = (
        tf.data.TFRecordDataset(list(files), compression_type="GZIP")
        .skip(first)
        .take(-1 if block.stop is None else block.stop - first)
        .batch(batch_size)
    )
    yield from records.map(lambda rows: tf.io.parse_example(rows, parsing)).prefetch(1)


def padded_inputs(
    parsed: Mapping[str, tf.RaggedTensor], tensors: Mapping[str, tf.TensorSpec]
) -> dict[str, tf.Tensor]:
    """Return ragged rows as inputs of a signature; inputs that were not parsed are left out."""
    inputs = {}
    for name, tensor in tensors.items():
        if name in parsed:
            missing = missing_value(tensor.dtype)
            inputs[name] = parsed[name].to_tensor(missing)
            if tensor.shape.rank == 1:
                # If the whole batch lacks the value, there are zero columns.
                padded = tf.pad(inputs[name], [[0, 0], [0, 1]], constant_values=missing)
                inputs[name] = padded[:, 0]
    return inputs
