"""The weights of the towers by names that outlive a process.

Keras numbers layers by what the process has made before, so its own names of variables differ from
one fit to the next. Where a weight hangs in its tower does not.
"""

from collections.abc import Iterable, Iterator

import tensorflow as tf
import tf_keras

# Neither "/" nor ".", which checkpoints write in another way.
_SEPARATOR = ":"


def named_weights(towers: Iterable[tf_keras.layers.Layer]) -> dict[str, tf.Variable]:
    """Returns the variables by name, such as `candidate_tower:ids:embeddings`.

    A name is the path of attributes from the tower to the variable, without leading underscores.
    Exported models carry these names: renaming an attribute of a tower ends warm starts from them.
    What two towers share has the name of the first.
    """
    weights: dict[str, tf.Variable] = {}
    seen: set[int] = set()
    for tower in towers:
        view = tf.train.TrackableView(tower)
        for path, variable in _variables(view, tower, (tower.name,), seen):
            weights[_SEPARATOR.join(part.lstrip("_") for part in path)] = variable
    return weights


def _variables(
    view: tf.train.TrackableView, node: object, path: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], tf.Variable]]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, tf.Variable):
        yield path, node
        return
    for name, child in view.children(node).items():
        yield from _variables(view, child, (*path, name), seen)
