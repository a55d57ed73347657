"""The Keras callback that saves checkpoints, resumes from them and stops early."""

import datetime
import logging
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from models.config import TrainingConfig

# The command line shows the records of this logger as progress. The attribute `fraction` of a
# record is the completed share.
progress = logging.getLogger("two_tower.progress")
# A metric of held-out timelines changes by chance between epochs. Of two epochs whose values differ
# by less than this factor, the later one is better, because its learning rate is lower. Without
# this rule, a run on lastfm (94 held-out timelines) stopped after 14 of 20 epochs; its recall@20
# was .294, and .299 after 20.
_TIE = 0.98


class FitState(tf_keras.callbacks.Callback):
    """Callback that saves checkpoints, stops training early and restores the best weights.

    Keras' BackupAndRestore and EarlyStopping do not save the best weights and the epochs since
    then, so a killed and resumed run would end with a different model from an uninterrupted one.

    Args:
        directory: Folder of the checkpoints, which `discard` deletes.
        training: Numbers of epochs, patience and minimum time between checkpoints.
        measure: Function that returns the quality of the model after an epoch; higher is better.
            A later epoch replaces an earlier one if its quality is no more than 2% lower. Default:
            the negative validation loss, without this tolerance.

    Attributes:
        history: Losses and validation metric of each epoch since the start or restart.

    Example:
        state = FitState(Path("checkpoints"), training)
        model.fit(batches, initial_epoch=state.resume(model), epochs=20, callbacks=[state])
        state.restore_best()
    """

    def __init__(
        self, directory: Path, training: TrainingConfig, measure: Callable[[], float] | None = None
    ) -> None:
        super().__init__()
        self._directory = directory
        self._training = training
        self._measure = measure
        self.history: list[dict[str, float]] = []
        self._saved_at = self._began_at = time.monotonic()
        self._first_epoch = 0
        self._epoch = tf.Variable(0, dtype=tf.int64)
        self._best_value = tf.Variable(-math.inf, dtype=tf.float64)
        self._epochs_since_best = tf.Variable(0, dtype=tf.int64)

    def set_model(self, model: tf_keras.Model) -> None:
        """Attach the model; Keras calls this before training."""
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
        """Restore the last checkpoint, if there is one, and return the first epoch to train."""
        self.set_model(model)
        if self._latest.restore_or_initialize() is not None:
            progress.info("resuming after epoch %d of %d", self.epochs_done, self._training.epochs)
        return self.epochs_done

    @property
    def epochs_done(self) -> int:
        """Return the number of epochs trained, including those before a restart."""
        return int(self._epoch)

    @property
    def best_epoch(self) -> int:
        """Return the epoch with the best quality, from 1; without a measure, the last one."""
        return self.epochs_done - int(self._epochs_since_best)

    @property
    def stopped_early(self) -> bool:
        """Return True if the quality has not improved for `patience` epochs."""
        patience = self._training.early_stopping_patience
        return bool(patience and int(self._epochs_since_best) >= patience)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start to measure the time of an epoch."""
        self._began_at, self._first_epoch = time.monotonic(), self.epochs_done

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save the best weights and the state; stop training when the patience is exhausted."""
        # Callbacks share the logs, so the metric is also written for TensorBoard.
        logs = {} if logs is None else logs
        self._epoch.assign(epoch + 1)
        value = -logs["val_loss"] if "val_loss" in logs else None
        if self._measure is not None:
            value = logs["validation_metric"] = self._measure()
        if value is not None:
            best = float(self._best_value)
            tie = _TIE if self._measure is not None else 1.0
            if value > best or value > tie * best:
                self._best_value.assign(max(value, best))
                self._epochs_since_best.assign(0)
                self._best.save()
            else:
                self._epochs_since_best.assign_add(1)
        waited_s = time.monotonic() - self._saved_at
        # Several workers would have to save at the same time.
        may_save = self._training.strategy != "multi_worker"
        if may_save and waited_s >= self._training.checkpoint_every_s:
            self._latest.save()
            self._saved_at = time.monotonic()
        done, total = epoch + 1, self._training.epochs
        self.history.append({"epoch": done, **{name: float(of) for name, of in logs.items()}})
        values = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
        seconds = (time.monotonic() - self._began_at) / (done - self._first_epoch)
        left = f"at most {datetime.timedelta(seconds=round(seconds * (total - done)))} left"
        extra = {"fraction": done / total}
        progress.info("epoch %d/%d  %s  %s", done, total, values, left, extra=extra)
        if self.stopped_early:
            self.model.stop_training = True

    def restore_best(self) -> None:
        """Restore the weights of the best epoch, if one was measured."""
        if self._best.restore_or_initialize() is not None and self.best_epoch < self.epochs_done:
            progress.info("epoch %d was the best of %d", self.best_epoch, self.epochs_done)

    def release(self) -> None:
        """Let go of the model, so that its memory can be freed; no further epoch is possible."""
        self._measure = None
        del self.model, self._latest, self._best

    def discard(self) -> None:
        """Delete the checkpoints; call this after the export."""
        shutil.rmtree(self._directory, ignore_errors=True)
