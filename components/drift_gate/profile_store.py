"""What was let pass, as folders below the pipeline's root.

On a cluster ML Metadata is out of a step's reach, so the gate leaves what later runs hold their
spans against: one folder a run, written once, named by its newest span and the time.
"""

import os
import time

from tfx.dsl.io import fileio

from components.drift_gate.accepted_spans import is_whole


def new_folder(directory: str, span: int) -> str:
    """Makes the folder of a run.

    Args:
        directory: Of the folders of all runs.
        span: The newest of the run.
    """
    folder = os.path.join(directory, f"{span}-{time.time_ns()}")
    fileio.makedirs(folder)
    return folder


def newest_folder(directory: str) -> str:
    """Returns the folder of the last run that was let pass; "" where there is none.

    Args:
        directory: Of the folders of all runs; it need not exist.
    """
    if not fileio.exists(directory):
        return ""
    found = []
    for entry in fileio.listdir(directory):
        name = entry.rstrip("/")  # as object stores write folders
        span, _, moment = name.partition("-")
        if span.isdecimal() and moment.isdecimal():
            found.append((int(moment), os.path.join(directory, name)))
    for _, folder in sorted(found, reverse=True):
        if is_whole(folder):
            return folder
    return ""
