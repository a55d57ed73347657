"""Side inputs of Beam's own process without the cache that measures them."""

import contextlib
from collections.abc import Iterator

from apache_beam.runners.portability.fn_api_runner import worker_handlers


@contextlib.contextmanager
def no_side_input_cache() -> Iterator[None]:
    """Lets Beam's in-process worker read side inputs each time, instead of keeping them.

    Before Beam keeps one, it adds up the sizes of all objects in it, one by one in Python. A
    vocabulary reaches Transform as a side input that is read once: of half a million values it took
    minutes to measure what was then never looked at. The size of the cache is no option of
    DirectRunner's.
    """
    before = worker_handlers.STATE_CACHE_SIZE_MB
    worker_handlers.STATE_CACHE_SIZE_MB = 0
    try:
        yield
    finally:
        worker_handlers.STATE_CACHE_SIZE_MB = before
