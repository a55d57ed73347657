"""Several drivers at once, each in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from serving.loadtest.driver import drive
from serving.loadtest.plan import LoadPlan
from serving.loadtest.result import LoadResult

_START_TIMEOUT_S = 60.0
_together: Any = None  # Of a driver's process, set when it starts.


def drive_in_processes(plan: LoadPlan, processes: int = 1) -> LoadResult:
    """Put the load of `plan` on its server from fresh processes.

    A driver of its own process shares no interpreter with whoever asked for it: TensorFlow's
    threads and garbage there cost it nothing.

    Args:
        plan: All of the load.
        processes: Over how many drivers it is spread; never more than there are clients.

    Raises:
        ValueError: If `processes` is not at least 1.
    """
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    count = min(processes, plan.concurrency or processes)
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(count)
    with ProcessPoolExecutor(count, context, _wait_with, (together,)) as pool:
        parts = [plan.share(place, count) for place in range(count)]
        return LoadResult.merge(list(pool.map(_drive, parts)))


def _wait_with(together: Any) -> None:
    global _together
    _together = together


def _drive(plan: LoadPlan) -> LoadResult:
    # Processes take a while to start: all begin when the last one is there.
    _together.wait(_START_TIMEOUT_S)
    return asyncio.run(drive(plan))
