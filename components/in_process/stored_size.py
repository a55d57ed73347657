"""Whether an artifact is so small that setting up Beam costs more than doing the work here."""

import os

import tensorflow as tf

# As stored, compressed: some five million events.
SMALL_BYTES = 32 * 2**20


def is_small(folder: str) -> bool:
    """Whether all files below `folder` together have at most `SMALL_BYTES`."""
    return stored_bytes(folder) <= SMALL_BYTES


def stored_bytes(folder: str) -> int:
    """Returns the bytes of all files below `folder`."""
    return sum(
        int(tf.io.gfile.stat(os.path.join(parent, name)).length)
        for parent, _, names in tf.io.gfile.walk(folder)
        for name in names
    )
