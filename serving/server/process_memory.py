"""Keeps the memory of the process flat over reloads."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time

from serving.server import event_log


def keep_what_is_there() -> None:
    """Exempt everything that was imported from garbage collection.

    TensorFlow's modules hold a quarter of a million objects that live as long as the process. To
    look through them took half a second, in which no request is answered, at each `give_back`.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Return the memory of a version that was unloaded to the system.

    A graph of TensorFlow's is a ring of objects that refer to each other, and holds the constants
    of its model: it goes only when Python looks for such rings, which in a quiet server takes
    hours. What is freed then the allocator would keep. 6 to 8 MB of each version with 50,000
    candidates stayed without this, over thirty versions; 0.02 MB do with it.
    """
    began_at = time.monotonic()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # Another C library than glibc.
        ctypes.CDLL(None).malloc_trim(0)
    event_log.info("memory_given_back", seconds=time.monotonic() - began_at)
