"""A model artifact that records that there is no model.

A cluster step cannot reach ML Metadata, so a step that looks for an earlier model always writes an
artifact. A marker file distinguishes "no model" from an artifact that is empty by mistake.
"""

import os

import tensorflow as tf

_FILE = "NO_MODEL"


def is_missing_model(path: str) -> bool:
    """Return True if the folder of a SavedModel holds the marker file."""
    return bool(tf.io.gfile.exists(os.path.join(path, _FILE)))


def write_missing_model(path: str, reason: str) -> None:
    """Write the marker file, which contains the reason, to the folder of a SavedModel."""
    tf.io.gfile.makedirs(path)
    with tf.io.gfile.GFile(os.path.join(path, _FILE), "w") as file:
        file.write(reason + "\n")
