"""A model artifact that stands for "there is no such model".

Where ML Metadata is out of reach, a step that looks for an earlier model must leave an artifact
also if there is none. A file in its place says so: an artifact that is merely empty is an error.
"""

import os

import tensorflow as tf

_FILE = "NO_MODEL"


def is_no_model(path: str) -> bool:
    """Returns whether the folder of a SavedModel says that there is none."""
    return bool(tf.io.gfile.exists(os.path.join(path, _FILE)))


def write_no_model(path: str, reason: str) -> None:
    """Makes the folder of a SavedModel say that there is none, and why."""
    tf.io.gfile.makedirs(path)
    with tf.io.gfile.GFile(os.path.join(path, _FILE), "w") as file:
        file.write(reason + "\n")
