"""Measure the share of training time that is spent waiting for input.

Training steps read batches from the real input pipeline, and the wait for each batch is measured.
For comparison, the same steps read the same batches from a list: the difference in CPU time is the
cost of the input pipeline. Timelines are read from memory and, in each epoch, from files.

Usage: python benchmarks/input.py [--json]
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import models  # noqa: F401, I001 - chooses Keras 2 before TensorFlow is imported
import numpy as np
import tensorflow as tf

from benchmarks._report import Row, options_parser, row, run
from models.config import ModelConfig, TrainingConfig
from models.features.spec import FeatureSpec
from models.training.optimizers import make_optimizer
from models.features.vocabularies import FeatureSizes
from models.input.timeline_dataset import MEMORY_BYTES, TimelineDataset
from models.training.two_tower_model import TwoTowerModel

# Time and number of epochs per measurement. An epoch of the small data only takes 0.2 s.
SECONDS, LEAST_EPOCHS, MOST_EPOCHS = 20.0, 3, 60
SPEC = FeatureSpec.model_validate(
    {
        "columns": {"query_id": "user", "candidate_id": "item"},
        "features": {"query": {"age": {"kind": "numeric"}, "country": {"kind": "categorical"}}},
    }
)
# Name, timelines, mean events, candidates. The small data has the size of MovieLens 100K.
DATA = (("small", 943, 85, 1_682), ("large", 8_000, 17, 20_000))
MUST, AIM = 0.05, 0.02


def write_timelines(path: str, timelines: int, mean_events: int, candidates: int) -> int:
    """Write transformed timelines; return the number of events."""
    rng = np.random.default_rng(1)
    lengths = 1 + rng.geometric(1 / mean_events, timelines)
    popular = rng.zipf(1.3, int(lengths.sum())) % candidates
    start = 0
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for number, length in enumerate(lengths):
            example = tf.train.Example()
            feature = example.features.feature
            feature["user"].int64_list.value.append(0)
            feature["item"].int64_list.value.extend(popular[start : start + length])
            feature["age"].float_list.value.append(number % 70)
            feature["country"].int64_list.value.append(number % 9)
            writer.write(example.SerializeToString())
            start += length
    return int(lengths.sum())


def make_step(candidates: int, training: TrainingConfig, batches: Any) -> Callable[[Any], Any]:
    model = TwoTowerModel(
        SPEC,
        FeatureSizes(queries=1, candidates=candidates + 1, features={"country": 10}),
        ModelConfig(),
        training,
        {},
        np.ones(candidates, np.int64),
        1,
    )
    model.compile(optimizer=make_optimizer(training, 1000))
    model.compute_loss(next(iter(batches)))
    model.optimizer.build(model.trainable_variables)
    return tf.function(model.train_step, [batches.element_spec], autograph=False)


class Epoch(NamedTuple):
    """Wall time, wait for batches and CPU time of one epoch."""

    wall_s: float
    waited_s: float
    cpu_s: float


def fit(step: Callable[[Any], Any], batches: Iterator[Any], steps: int) -> Epoch:
    waited_s = 0.0
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    for _ in range(steps):
        asked_s = time.perf_counter()
        batch = next(batches)
        waited_s += time.perf_counter() - asked_s
        step(batch)
    return Epoch(time.perf_counter() - started_s, waited_s, time.process_time() - started_cpu_s)


def measure(
    file: str, memory_bytes: int, batch_size: int, step: Callable[[Any], Any]
) -> tuple[float, float, float]:
    """Return medians over epochs: the shares of waiting and of input's CPU, and the time in s."""
    timelines = TimelineDataset([file], SPEC, batch_size, 0.0, 1, memory_bytes=memory_bytes)
    ready = list(timelines.epochs(0, 1))
    steps = len(ready)
    fit(step, iter(ready), steps)  # traces the step
    real = iter(timelines.epochs(0, MOST_EPOCHS + 1))
    fit(step, real, steps)  # fills the input pipeline
    found: list[tuple[Epoch, Epoch]] = []
    ends_at = time.perf_counter() + SECONDS
    while len(found) < LEAST_EPOCHS or (len(found) < MOST_EPOCHS and time.perf_counter() < ends_at):
        found.append((fit(step, real, steps), fit(step, iter(ready), steps)))
    median = statistics.median
    return (
        median(real.waited_s / real.wall_s for real, _ in found),
        median(1 - ready.cpu_s / real.cpu_s for real, ready in found),
        median(real.wall_s for real, _ in found),
    )


def rows(options: Any, folder: Path) -> Iterator[Row]:
    training = TrainingConfig()
    for name, timelines, mean_events, candidates in DATA:
        file = str(folder / f"{name}.gz")
        events = write_timelines(file, timelines, mean_events, candidates)
        yield row(f"{name}_events", events, "events")
        batches = TimelineDataset([file], SPEC, training.batch_size, 0.0, 1).epochs(0, 1)
        step = make_step(candidates, training, batches)
        for source, size in (("memory", MEMORY_BYTES), ("files", 0)):
            waiting, cpu, epoch_s = measure(file, size, training.batch_size, step)
            yield row(f"{name}_{source}_waiting", waiting, "share", MUST, AIM)
            yield row(f"{name}_{source}_cpu_of_input", cpu, "share")
            yield row(f"{name}_{source}_epoch", epoch_s, "s")


if __name__ == "__main__":
    run(options_parser(__doc__), rows, "tensorflow")
