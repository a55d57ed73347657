"""Which share of training time is spent waiting for input.

An epoch is fitted twice in turn: from the real input pipeline, and from the very same batches laid
ready in memory. What the first takes longer is the wait. Once with timelines that are parsed into
memory, as they are while they are small, and once read from their files in each epoch.

Usage: python benchmarks/input.py [--json]
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import models  # noqa: F401, I001 - chooses Keras 2 before TensorFlow is imported
import numpy as np
import tensorflow as tf

from benchmarks._report import environment, report, row
from models.candidate_table import CandidateTable
from models.config import ModelConfig, TrainingConfig
from models.features import FeatureSpec
from models.optimizers import make_optimizer
from models.sizes import FeatureSizes
from models.timeline_dataset import TimelineDataset
from models.timeline_rows import MEMORY_BYTES
from models.two_tower import TwoTowerModel

# At each place; an epoch of the small data takes a fifth of a second, and many are needed.
SECONDS, LEAST_TURNS, MOST_TURNS = 20.0, 3, 60
SPEC = FeatureSpec.model_validate(
    {
        "columns": {"query_id": "user", "candidate_id": "item"},
        "features": {"query": {"age": {"kind": "numeric"}, "country": {"kind": "categorical"}}},
    }
)
# Name, timelines, mean events, candidates: the size of MovieLens 100K, and sessions.
DATA = (("small", 943, 85, 1_682), ("large", 8_000, 17, 20_000))
MUST, AIM = 0.05, 0.02


def write_timelines(path: str, timelines: int, mean_events: int, candidates: int) -> int:
    """Writes transformed timelines; returns the number of events."""
    rng = np.random.default_rng(1)
    lengths = 1 + rng.geometric(1 / mean_events, timelines)
    popular = rng.zipf(1.3, int(lengths.sum())) % candidates
    start = 0
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for row, length in enumerate(lengths):
            features = {
                "user": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
                "item": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=popular[start : start + length])
                ),
                "age": tf.train.Feature(float_list=tf.train.FloatList(value=[row % 70])),
                "country": tf.train.Feature(int64_list=tf.train.Int64List(value=[row % 9])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
            start += length
    return int(lengths.sum())


def make_step(candidates: int, training: TrainingConfig, batches: Any) -> Callable[[Any], Any]:
    model = TwoTowerModel(
        SPEC,
        FeatureSizes(queries=1, candidates=candidates + 1, features={"country": 10}),
        ModelConfig(),
        training,
        CandidateTable(candidates, {}),
        np.ones(candidates, np.int64),
    )
    model.compile(optimizer=make_optimizer(training, 1000))
    model.compute_loss(next(iter(batches)))
    model.optimizer.build(model.trainable_variables)
    return tf.function(model.train_step, [batches.element_spec], autograph=False)


def seconds(step: Callable[[Any], Any], batches: Any) -> float:
    started = time.perf_counter()
    for batch in batches:
        step(batch)
    return time.perf_counter() - started


def waiting(
    file: str, memory_bytes: int, batch_size: int, step: Callable[[Any], Any]
) -> tuple[float, float]:
    """Returns the median share of an epoch that is waited, and the seconds of an epoch."""
    timelines = TimelineDataset([file], SPEC, batch_size, 0.0, 1, memory_bytes=memory_bytes)
    ready = list(timelines.epochs(0, 1))
    seconds(step, ready)  # traces
    shares, epochs = [], []
    real = iter(timelines.epochs(0, MOST_TURNS + 1))
    steps = timelines.steps_per_epoch
    seconds(step, (next(real) for _ in range(steps)))  # the pipeline is running from here on
    ends_at = time.perf_counter() + SECONDS
    while len(shares) < LEAST_TURNS or (len(shares) < MOST_TURNS and time.perf_counter() < ends_at):
        pair = {}
        # Turn about, so that a machine that slows down slows both.
        for which in ("real", "ready") if len(shares) % 2 else ("ready", "real"):
            batches = (next(real) for _ in range(steps)) if which == "real" else ready
            pair[which] = seconds(step, batches)
        shares.append(1 - pair["ready"] / pair["real"])
        epochs.append(pair["real"])
    return statistics.median(shares), statistics.median(epochs)


def rows() -> list[dict[str, Any]]:
    found = []
    training = TrainingConfig()
    with tempfile.TemporaryDirectory() as folder:
        for name, timelines, mean_events, candidates in DATA:
            file = os.path.join(folder, f"{name}.gz")
            events = write_timelines(file, timelines, mean_events, candidates)
            found.append(row(f"{name}_events", events, "events"))
            batches = TimelineDataset([file], SPEC, training.batch_size, 0.0, 1).epochs(0, 1)
            step = make_step(candidates, training, batches)
            for place, size in (("memory", MEMORY_BYTES), ("files", 0)):
                share, epoch = waiting(file, size, training.batch_size, step)
                found.append(row(f"{name}_{place}_waiting", share, "share", MUST, AIM))
                found.append(row(f"{name}_{place}_epoch", epoch, "s"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    return report(environment("tensorflow"), rows(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
