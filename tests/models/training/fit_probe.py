"""Train on communities, alone or as one of several processes, and write loss and weights.

python -m tests.models.training.fit_probe EXAMPLES OUTPUT STRATEGY LOGICAL_DEVICES TRAINING
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tf_keras

from models.config import ModelConfig, TrainingConfig
from models.input.timeline_dataset import TimelineDataset
from models.towers.export import named_weights
from models.training.distribution import make_strategy
from models.training.trainer import fit
from tests.builders import feature_spec
from tests.models.conftest import NUM_ITEMS
from tests.models.fitting import model_of_ids


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
    folder = Path(output)
    fit(model, timelines, training, folder / "state", str(folder / "log"))
    weights = named_weights([model.candidate_tower, model.query_tower])
    np.savez(folder / "weights.npz", **{name: w.numpy() for name, w in weights.items()})
    (folder / "result.json").write_text(
        json.dumps({"logs": model.history.history, "replicas": scope.num_replicas_in_sync})
    )


if __name__ == "__main__":
    main()
