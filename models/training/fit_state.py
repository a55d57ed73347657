"""What a killed fit needs to go on: weights, optimiser, epoch, and the best weights so far."""

import logging
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

# Lines of this logger are progress for a person; `fraction` on a record is the share that is done,
# which the command draws as a bar.
progress = logging.getLogger("two_tower.progress")


class FitState(tf_keras.callbacks.Callback):
    """Saves where the fit stands, stops it early, and restores the best weights at its end.

    Keras' own BackupAndRestore and EarlyStopping forget the best weights and the patience of a
    run that was killed, so a resumed run would end elsewhere than an uninterrupted one.

    Args:
        directory: Where the checkpoints stand; kept until `discard`.
        patience: Epochs without a better validation loss before stopping; 0 never stops.
        every_s: Least seconds between checkpoints.
        epochs: For the progress lines.
        measure: How good the model is after an epoch; the validation loss decides if absent.
    """

    def __init__(
        self,
        directory: Path,
        patience: int,
        every_s: float,
        epochs: int,
        measure: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        self._directory = directory
        self._patience = patience
        self._every_s = every_s
        self._epochs = epochs
        self._measure = measure
        self._saved_at = time.monotonic()
        self._epoch = tf.Variable(0, dtype=tf.int64)
        self._best_value = tf.Variable(-math.inf, dtype=tf.float64)
        self._epochs_since_best = tf.Variable(0, dtype=tf.int64)

    def set_model(self, model: tf_keras.Model) -> None:
        """Attaches the model, as Keras does before fitting."""
        super().set_model(model)
        checkpoint = tf.train.Checkpoint(
            model=model,
            epoch=self._epoch,
            best_value=self._best_value,
            epochs_since_best=self._epochs_since_best,
        )
        self._latest = tf.train.CheckpointManager(
            checkpoint, str(self._directory / "latest"), max_to_keep=1
        )
        self._best = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=model), str(self._directory / "best"), max_to_keep=1
        )

    def resume(self, model: tf_keras.Model) -> int:
        """Restores the last checkpoint if there is one; returns the epoch to begin with."""
        self.set_model(model)
        if self._latest.latest_checkpoint is None:
            return 0
        self._latest.checkpoint.restore(self._latest.latest_checkpoint).expect_partial()
        progress.info("resuming after epoch %d of %d", int(self._epoch), self._epochs)
        return int(self._epoch)

    @property
    def epochs_done(self) -> int:
        """How many epochs were fitted, in this process and before."""
        return int(self._epoch)

    @property
    def stopped_early(self) -> bool:
        """Whether the patience is spent."""
        return bool(self._patience and int(self._epochs_since_best) >= self._patience)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keeps the best weights, saves the state, stops when the patience is spent."""
        logs = dict(logs or {})
        self._epoch.assign(epoch + 1)
        value = -logs["val_loss"] if "val_loss" in logs else None
        if self._measure is not None:
            value = logs["watched"] = self._measure()
        if value is not None:
            if value > float(self._best_value):
                self._best_value.assign(value)
                self._epochs_since_best.assign(0)
                self._best.save()
            else:
                self._epochs_since_best.assign_add(1)
        if time.monotonic() - self._saved_at >= self._every_s:
            self._latest.save()
            self._saved_at = time.monotonic()
        values = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
        progress.info(
            "epoch %d/%d  %s",
            epoch + 1,
            self._epochs,
            values,
            extra={"fraction": (epoch + 1) / self._epochs},
        )
        if self.stopped_early:
            self.model.stop_training = True

    def restore_best(self) -> None:
        """Puts back the weights of the best epoch, where one was measured."""
        if self._best.latest_checkpoint is not None:
            self._best.checkpoint.restore(self._best.latest_checkpoint).expect_partial()

    def discard(self) -> None:
        """Removes the checkpoints, once the model is exported."""
        shutil.rmtree(self._directory, ignore_errors=True)
