"""Training on several devices: strategy, cluster, batches and collective operations."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from models.errors import ClusterError, WorkerFailedError
from models.training.checkpoints_and_early_stopping import progress

# Stored next to the checkpoints, in a folder that all workers must be able to read.
ARGUMENTS_FILE = "workers.json"
_WORKER_MODULE = "models.training.multi_worker"
# Much larger than the offsets that the model adds to the seed of a step.
_SEED_STRIDE = 100_003


def make_strategy(name: Literal["none", "mirrored", "multi_worker"]) -> tf.distribute.Strategy:
    """Return the strategy; `multi_worker` waits until all workers of TF_CONFIG have started.

    Raises:
        ClusterError: TF_CONFIG is missing or wrong.
    """
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        read_task()
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


class Task(NamedTuple):
    """Task of this process in the cluster; the chief exports the model."""

    kind: str
    number: int
    is_chief: bool


def read_task() -> Task:
    """Return the task that TF_CONFIG gives to this process; without a chief, worker 0 is it.

    Raises:
        ClusterError: TF_CONFIG is missing or wrong.
    """
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    try:
        cluster, kind, index = resolver.cluster_spec(), resolver.task_type, resolver.task_id
        cluster.task_address(kind, index)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClusterError(
            "`training.strategy: multi_worker` needs a cluster in the environment variable "
            f"TF_CONFIG, got {os.environ.get('TF_CONFIG', '')!r}; set it to, for example, "
            '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
        ) from error
    chief = ("chief" if "chief" in cluster.jobs else "worker", 0)
    return Task(kind, index, (kind, index) == chief)


def fit_as_chief(arguments: Mapping[str, Any], folder: Path) -> None:
    """Train in a new process together with the other workers; return after the export.

    TensorFlow must configure the cluster before any other operation, but in this process other
    components have already used TensorFlow. The user starts the other workers; see
    `models.training.multi_worker`. Their arguments, the fields of TFX's FnArgs, are in `folder`
    while training runs.

    Raises:
        ClusterError: TF_CONFIG is missing, wrong, or describes another worker.
        WorkerFailedError: The process failed.
    """
    task = read_task()
    if not task.is_chief:
        raise ClusterError(
            "the pipeline must run as the chief, but TF_CONFIG makes this process "
            f"{task.kind} {task.number}; start the other workers with `python -m {_WORKER_MODULE}`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ARGUMENTS_FILE
    incoming = path.with_suffix(".incoming")
    incoming.write_text(json.dumps(arguments))
    os.replace(incoming, path)
    progress.info(
        "waiting for the other workers: python -m %s --arguments %s", _WORKER_MODULE, path
    )
    try:
        done = subprocess.run(
            [sys.executable, "-m", _WORKER_MODULE, "--arguments", str(path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
    finally:
        path.unlink(missing_ok=True)
    if done.returncode:
        raise WorkerFailedError(
            f"the training process of the chief failed with exit code {done.returncode}; its "
            "output is in the run's log"
        )


def distribute(strategy: tf.distribute.Strategy, batches: tf.data.Dataset | None) -> Any:
    """Return batches for Keras' `fit` that give each replica an equal part of the rows, in order.

    Every process reads all batches and drops the rows of other processes.
    """
    if batches is None or strategy.num_replicas_in_sync == 1:
        return batches

    def local_parts(context: tf.distribute.InputContext) -> tf.data.Dataset:
        replicas = context.num_replicas_in_sync
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        @tf.autograph.experimental.do_not_convert
        def split(batch: dict[str, tf.Tensor]) -> tf.data.Dataset:
            rows = tf.shape(next(iter(batch.values())))[0]

            def part(number: tf.Tensor) -> dict[str, tf.Tensor]:
                replica = tf.cast(number, tf.int32)
                start, end = replica * rows // replicas, (replica + 1) * rows // replicas
                return {name: values[start:end] for name, values in batch.items()}

            return tf.data.Dataset.range(first, first + local).map(part)

        return batches.flat_map(split).prefetch(2)

    return strategy.distribute_datasets_from_function(local_parts)


# The functions below run inside a training step, in which each replica has a part of the batch's
# rows. Together, the replicas must compute the same as one device with all rows.


def gathered(indices: tf.Tensor) -> tf.Tensor:
    """Return the indices `[n]` of all replicas, concatenated in the order of the rows."""
    context = _replica_context()
    if context is None:
        return indices
    # TensorFlow 2.16 crashes if several processes gather only empty tensors.
    everything = context.all_gather(tf.concat([indices, [-1]], axis=0), axis=0)
    return tf.boolean_mask(everything, everything >= 0)


def never_empty(gradient: Any) -> Any:
    """Add a row of zeros to a sparse gradient, because replicas cannot sum empty ones.

    The added row repeats an index of the gradient, so a row-wise optimizer updates no other row.
    """
    if _replica_context() is None or not isinstance(gradient, tf.IndexedSlices):
        return gradient
    zeros = tf.zeros(tf.concat([[1], tf.shape(gradient.values)[1:]], 0), gradient.values.dtype)
    row = tf.concat([gradient.indices, tf.zeros([1], gradient.indices.dtype)], axis=0)[:1]
    return tf.IndexedSlices(
        tf.concat([gradient.values, zeros], axis=0),
        tf.concat([gradient.indices, row], axis=0),
        gradient.dense_shape,
    )


def sum_of_all(weight: tf.Tensor) -> tf.Tensor:
    """Return the sum of `weight` over all replicas."""
    context = _replica_context()
    return weight if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, weight)


def seed_per_replica(seed: tf.Tensor) -> tf.Tensor:
    """Return a different seed for each replica, for random numbers that belong to rows."""
    context = _replica_context()
    if context is None:
        return seed
    replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
    return seed + tf.stack([_SEED_STRIDE * replica, 0])


def _replica_context() -> Any:
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context
