"""Load generator that measures the throughput, latencies and errors of a model server."""

from serving.loadtest.driver import drive, drive_in_processes
from serving.loadtest.load import LoadPlan, LoadResult
from serving.loadtest.requests import DRIVEN_SIGNATURES, build_requests

__all__ = [
    "DRIVEN_SIGNATURES",
    "LoadPlan",
    "LoadResult",
    "build_requests",
    "drive",
    "drive_in_processes",
]
