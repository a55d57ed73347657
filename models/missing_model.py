"""Marker file for a model artifact that has no model.

On a cluster, a step cannot query ML Metadata, so the step that looks up an earlier model always
writes an artifact. The marker file distinguishes "no model" from an artifact that is empty by
mistake.
"""

import os

import tensorflow as tf

_FILE = "NO_MODEL"


def is_missing_model(path: str) -> bool:
    """Return True if the folder of a SavedModel contains the marker file."""
    return bool(tf.io.gfile.exists(os.path.join(path, _FILE)))


def write_missing_model(path: str, reason: str) -> None:
    """Write the marker file to the folder of a SavedModel, with the reason as its content."""
    tf.io.gfile.makedirs(path)
    with tf.io.gfile.GFile(os.path.join(path, _FILE), "w") as file:
        file.write(reason + "\n")
