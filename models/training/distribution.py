"""Training on several devices: strategy, cluster, batches and collective operations."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tensorflow as tf

from models.errors import ClusterError, WorkerFailedError
from models.training.checkpoints_and_early_stopping import progress

if TYPE_CHECKING:
    # Not imported at run time: importing TFX takes seconds, and the model does not need it.
    from tfx.components.trainer.fn_args_utils import FnArgs

# Stored next to the checkpoints, in a folder that all workers must be able to read.
ARGUMENTS_FILE = "workers.json"
_WORKER_MODULE = "models.training.multi_worker"
_ROOT = Path(__file__).resolve().parents[2]
_TF_CONFIG = "TF_CONFIG"
_PASSED_ON = (
    "train_files",
    "eval_files",
    "transform_output",
    "serving_model_dir",
    "model_run_dir",
    "base_model",
    "hyperparameters",
    "custom_config",
)
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


def read_task() -> tuple[str, int]:
    """Return the type and index of this process's task from TF_CONFIG.

    Raises:
        ClusterError: TF_CONFIG is missing or wrong.
    """
    text = os.environ.get(_TF_CONFIG, "")
    try:
        config = json.loads(text)
        kind, index = config["task"]["type"], int(config["task"]["index"])
        address = config["cluster"][kind][index]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ClusterError(
            "`training.strategy: multi_worker` needs a cluster in the environment variable "
            f"TF_CONFIG, got {text!r}; set it to, for example, "
            '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
        ) from error
    if not isinstance(address, str):
        raise ClusterError(f"TF_CONFIG must list HOST:PORT for each task, got {address!r}")
    return kind, index


def is_chief() -> bool:
    """Return True if this process exports the model: the chief or, if there is none, worker 0."""
    kind, index = read_task()
    if "chief" in json.loads(os.environ[_TF_CONFIG])["cluster"]:
        return kind == "chief"
    return kind == "worker" and index == 0


def fit_as_chief(fn_args: "FnArgs", folder: Path) -> None:
    """Train in a new process together with the other workers; return after the export.

    TensorFlow must configure the cluster before any other operation, but in this process other
    components have already used TensorFlow. The user starts the other workers; see
    `models.training.multi_worker`. Their arguments are in `folder` while training runs.

    Raises:
        ClusterError: TF_CONFIG is missing, wrong, or describes another worker.
        WorkerFailedError: The process failed.
    """
    kind, index = read_task()
    if not is_chief():
        raise ClusterError(
            f"the pipeline must run as the chief, but TF_CONFIG makes this process {kind} {index}; "
            f"start the other workers with `python -m {_WORKER_MODULE}`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ARGUMENTS_FILE
    incoming = path.with_suffix(".incoming")
    incoming.write_text(json.dumps({name: getattr(fn_args, name) for name in _PASSED_ON}))
    os.replace(incoming, path)
    progress.info(
        "waiting for the other workers: python -m %s --arguments %s", _WORKER_MODULE, path
    )
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-m", _WORKER_MODULE, "--arguments", str(path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            check=False,
        )
    finally:
        path.unlink(missing_ok=True)
    if done.returncode:
        raise WorkerFailedError(
            f"the training process of the chief failed with exit code {done.returncode}; its "
            "output is in the run's log"
        )


def distribute(
    strategy: tf.distribute.Strategy, make_batches: Callable[[], tf.data.Dataset | None]
) -> Any:
    """Return batches for Keras' `fit` that give each replica an equal part of the rows, in order.

    Every process reads all batches and drops the rows of other processes.
    """
    batches = make_batches()
    if batches is None or strategy.num_replicas_in_sync == 1:
        return batches

    def local_parts(context: tf.distribute.InputContext) -> tf.data.Dataset:
        replicas = context.num_replicas_in_sync
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        @tf.autograph.experimental.do_not_convert
        def split(batch: dict[str, tf.Tensor]) -> tf.data.Dataset:
            rows = tf.shape(next(iter(batch.values())))[0]

            def part(replica: tf.Tensor) -> dict[str, tf.Tensor]:
                start, end = replica * rows // replicas, (replica + 1) * rows // replicas
                return {name: values[start:end] for name, values in batch.items()}

            return tf.data.Dataset.range(first, first + local).map(
                lambda replica: part(tf.cast(replica, tf.int32))
            )

        return batches.flat_map(split).prefetch(2)

    return strategy.distribute_datasets_from_function(local_parts)


# The functions below run inside a training step. With one replica, they have no effect. With
# several, each replica has a part of the batch's rows, and together they must compute the same as
# one device with all rows.


def gathered(indices: tf.Tensor) -> tf.Tensor:
    """Return the indices `[n]` of all replicas, concatenated in the order of the rows."""
    context = _replica_context()
    if context is None:
        return indices
    # TensorFlow 2.16 crashes if several processes gather only empty tensors.
    everything = context.all_gather(tf.concat([indices, [-1]], axis=0), axis=0)
    return tf.boolean_mask(everything, everything >= 0)


def never_empty(gradient: Any) -> Any:
    """Add a row of zeros to a sparse gradient, so that replicas can sum it even if it is empty.

    Sparse gradients are summed by gathering their rows, which must not all be empty; see
    `gathered`. The added row repeats an index of the gradient, so that a row-wise optimizer updates
    no other row.
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


def share_of_all(weight: tf.Tensor) -> tf.Tensor | float:
    """Return this replica's share of the sum of `weight` over all replicas.

    The gradients of replicas are summed. If each replica multiplies its mean loss by its share, the
    sum is the mean over all events. Otherwise, the events of replicas with few events would count
    more.
    """
    if _replica_context() is None:
        return 1.0
    return tf.math.divide_no_nan(weight, sum_of_all(weight))


def seed_per_replica(seed: tf.Tensor) -> tf.Tensor:
    """Return a different seed for each replica, for random numbers that belong to rows.

    Random numbers of the whole step, such as the negatives, use `seed` itself.
    """
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
