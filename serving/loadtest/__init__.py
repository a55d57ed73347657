"""Drives a model server with many requests and measures how it answers."""

from serving.loadtest.driver import drive
from serving.loadtest.plan import LoadPlan
from serving.loadtest.processes import drive_in_processes
from serving.loadtest.questions import DRIVEN_SIGNATURES, build_requests
from serving.loadtest.result import LoadResult

__all__ = [
    "DRIVEN_SIGNATURES",
    "LoadPlan",
    "LoadResult",
    "build_requests",
    "drive",
    "drive_in_processes",
]
