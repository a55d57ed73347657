"""Put load on a model server and measure its answers."""

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
