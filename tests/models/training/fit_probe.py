"""Train on communities, alone or as one of several processes, and write loss and weights.

python -m tests.models.training.fit_probe EXAMPLES OUTPUT STRATEGY LOGICAL_DEVICES TRAINING
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from models.config import ModelConfig, TrainingConfig
from models.input.timeline_dataset import TimelineDataset
from models.towers.export import named_weights
from models.training.checkpoints_and_early_stopping import FitState
from models.training.distribution import make_strategy
from models.training.trainer import fit
from tests.builders import feature_spec
from tests.models.fitting import model_of_ids

NUM_ITEMS = 20


def main() -> None:
    import tensorflow as tf

    examples, output, strategy, devices, training_json = sys.argv[1:]
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * int(devices)
    )
    training = TrainingConfig(**{**json.loads(training_json), "strategy": strategy})
    tf.config.experimental.enable_op_determinism()
    tf_keras.utils.set_random_seed(training.seed)
    scope = make_strategy(training.strategy)
    spec = feature_spec()
    timelines = TimelineDataset(
        [examples], spec, training.batch_size, training.validation_fraction, training.seed
    )
    with scope.scope():
        counts = np.arange(1, NUM_ITEMS + 1)
        model = model_of_ids(ModelConfig(dimension=4), training, counts)
    logs: list[dict[str, float]] = []
    end_of_epoch = FitState.on_epoch_end

    def ended(state: FitState, epoch: int, epoch_logs: Any = None) -> None:
        logs.append({name: float(value) for name, value in epoch_logs.items()})
        end_of_epoch(state, epoch, epoch_logs)

    FitState.on_epoch_end = ended  # type: ignore[method-assign]
    folder = Path(output)
    fit(model, timelines, training, folder / "state", str(folder / "log"))
    weights = named_weights([model.candidate_tower, model.query_tower])
    np.savez(folder / "weights.npz", **{name: w.numpy() for name, w in weights.items()})
    (folder / "result.json").write_text(
        json.dumps({"logs": logs, "replicas": scope.num_replicas_in_sync})
    )


if __name__ == "__main__":
    main()
