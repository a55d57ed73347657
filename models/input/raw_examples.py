"""Readers of the raw Examples that ingestion writes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.features.spec import (
    HISTORY_KEY,
    IS_TARGET_KEY,
    TIMESTAMP_KEY,
    FeatureConfig,
    FeatureSpec,
)
from models.input.raw_inputs import candidate_inputs, query_inputs

_EXAMPLES_PER_COUNT = 4096


@dataclass(frozen=True)
class RawTimelines:
    """A batch of timelines, split into histories and held-out targets.

    Attributes:
        inputs: Inputs of the served signature (`models.input.raw_inputs.query_inputs`), including
            the history.
        history: Candidate IDs that are not held out, `[batch, (events)]`, oldest first.
        targets: Held-out candidate IDs, `[batch, (events)]`.
        events: Candidate IDs of all events, `[batch, (events)]`, oldest first.
        is_target: 1 for each held-out element of `events`, `[batch, (events)]`.
    """

    inputs: Mapping[str, tf.Tensor]
    history: tf.RaggedTensor
    targets: tf.RaggedTensor
    events: tf.RaggedTensor
    is_target: tf.RaggedTensor


def read_timelines(
    files: Sequence[str], spec: FeatureSpec, batch_size: int
) -> Iterator[RawTimelines]:
    """Yield batches of the timelines in `files`, which are GZIP TFRecords of raw Examples."""
    parsing = {
        spec.query_id: tf.io.VarLenFeature(tf.string),
        spec.candidate_id: tf.io.RaggedFeature(tf.string),
        IS_TARGET_KEY: tf.io.RaggedFeature(tf.int64),
        **_parsing_spec(spec.query_features),
    }
    for parsed in _parsed(files, parsing, batch_size):
        events, is_target = parsed.pop(spec.candidate_id), parsed.pop(IS_TARGET_KEY)
        history = tf.ragged.boolean_mask(events, is_target == 0)
        inputs = _inputs(parsed, query_inputs(spec))
        inputs[HISTORY_KEY] = history.to_tensor("")
        targets = tf.ragged.boolean_mask(events, is_target == 1)
        yield RawTimelines(inputs, history, targets, events, is_target)


@dataclass(frozen=True)
class RawEvents:
    """The events of a batch of timelines as flat arrays.

    Attributes:
        queries: Query IDs as bytes, `[batch]`.
        candidates: Candidate IDs as bytes, one timeline after another, `[num_events]`.
        times: Epoch seconds, `[num_events]`; None if the data has no timestamps.
        offsets: Start of each timeline in `candidates`, and the end of the last, `[batch + 1]`.
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
        times = parsed.get(TIMESTAMP_KEY)
        yield RawEvents(
            queries=parsed[spec.query_id].numpy(),
            candidates=events.values.numpy(),
            times=None if times is None else times.values.numpy(),
            offsets=events.row_splits.numpy(),
        )


def read_candidates(
    files: Sequence[str], spec: FeatureSpec, batch_size: int, block: slice = slice(None)
) -> Iterator[dict[str, tf.Tensor]]:
    """Yield batches of the catalogue as inputs (`models.input.raw_inputs.candidate_inputs`).

    `block` is the range of candidates to read, counted over all files.
    """
    parsing = {
        spec.candidate_id: tf.io.VarLenFeature(tf.string),
        **_parsing_spec(spec.candidate_features),
    }
    for parsed in _parsed(files, parsing, batch_size, block):
        yield _inputs(parsed, candidate_inputs(spec))


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


def _parsing_spec(features: Mapping[str, FeatureConfig]) -> dict[str, tf.io.VarLenFeature]:
    return {
        name: tf.io.VarLenFeature(tf.float32 if feature.kind == "numeric" else tf.string)
        for name, feature in features.items()
    }


def _parsed(
    files: Sequence[str],
    parsing: Mapping[str, object],
    batch_size: int,
    block: slice = slice(None),
) -> Iterator[dict[str, tf.Tensor]]:
    first = block.start or 0
    records = (
        tf.data.TFRecordDataset(list(files), compression_type="GZIP")
        .skip(first)
        .take(-1 if block.stop is None else block.stop - first)
        .batch(batch_size)
    )
    yield from records.map(lambda rows: tf.io.parse_example(rows, parsing)).prefetch(1)


def _inputs(
    parsed: Mapping[str, tf.SparseTensor], tensors: Mapping[str, tf.TensorSpec]
) -> dict[str, tf.Tensor]:
    inputs = {}
    for name, tensor in tensors.items():
        if name not in parsed:
            continue
        missing = "" if tensor.dtype == tf.string else float("nan")
        dense = tf.sparse.to_dense(parsed[name], default_value=missing)
        if tensor.shape.rank == 1:
            # If the whole batch lacks the value, there are zero columns.
            dense = tf.pad(dense, [[0, 0], [0, 1]], constant_values=missing)[:, 0]
        inputs[name] = dense
    return inputs
