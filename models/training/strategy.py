"""On which devices a fit runs, and which rows of a batch each of them gets."""

import json
import os
from collections.abc import Callable
from typing import Any, Literal

import tensorflow as tf

StrategyName = Literal["none", "mirrored", "multi_worker"]
_TF_CONFIG = "TF_CONFIG"


class ClusterError(Exception):
    """TF_CONFIG does not describe a cluster and this process's place in it."""


def make_strategy(name: StrategyName) -> tf.distribute.Strategy:
    """Returns the strategy; `multi_worker` waits until all workers of TF_CONFIG are there.

    Raises:
        ClusterError: TF_CONFIG is missing or wrong.
    """
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        require_cluster()
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def require_cluster() -> tuple[str, int]:
    """Returns the type and the number of this process's task, as TF_CONFIG says.

    Raises:
        ClusterError: It is missing or wrong.
    """
    text = os.environ.get(_TF_CONFIG, "")
    try:
        config = json.loads(text)
        kind, index = config["task"]["type"], int(config["task"]["index"])
        known = config["cluster"][kind][index]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ClusterError(
            "`training.strategy: multi_worker` reads the cluster from the environment variable "
            'TF_CONFIG, such as {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": '
            f'"worker", "index": 0}}}}; got {text!r}'
        ) from error
    if not isinstance(known, str):
        raise ClusterError(f"TF_CONFIG must list HOST:PORT for each task, got {known!r}")
    return kind, index


def is_chief() -> bool:
    """Whether this process exports: the chief, or the first worker where no task is the chief."""
    kind, index = require_cluster()
    if "chief" in json.loads(os.environ[_TF_CONFIG])["cluster"]:
        return kind == "chief"
    return kind == "worker" and index == 0


def distribute(
    strategy: tf.distribute.Strategy, make_batches: Callable[[], tf.data.Dataset | None]
) -> Any:
    """Returns batches for `fit`: each replica gets an equal part of the rows, in their order.

    Every process reads all batches and drops the rows of others.

    Args:
        strategy: Of the model.
        make_batches: Returns batches of all rows, or None for none.
    """
    batches = make_batches()
    if batches is None or strategy.num_replicas_in_sync == 1:
        return batches

    def parts(context: tf.distribute.InputContext) -> tf.data.Dataset:
        replicas = context.num_replicas_in_sync
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        @tf.autograph.experimental.do_not_convert
        def split(batch: dict[str, tf.Tensor]) -> tf.data.Dataset:
            rows = tf.shape(next(iter(batch.values())))[0]

            def part(place: tf.Tensor) -> dict[str, tf.Tensor]:
                start, end = place * rows // replicas, (place + 1) * rows // replicas
                return {name: values[start:end] for name, values in batch.items()}

            return tf.data.Dataset.range(first, first + local).map(
                lambda place: part(tf.cast(place, tf.int32))
            )

        return batches.flat_map(split).prefetch(2)

    return strategy.distribute_datasets_from_function(parts)
