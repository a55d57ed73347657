"""Profiles of the spans that were let pass, as folders below the pipeline's root.

On a cluster ML Metadata is out of a step's reach, so the gate leaves what later runs hold their
spans against: one folder a profile, written once, named by its span and the time.
"""

import os
import time

from tfx.dsl.io import fileio

from components.drift_gate.span_profile import Profile, is_whole


def keep_profile(directory: str, profile: Profile) -> None:
    """Adds the profile of a span that was let pass."""
    folder = os.path.join(directory, f"{profile.span}-{time.time_ns()}")
    fileio.makedirs(folder)
    profile.write(folder)


def find_profile(directory: str, before_span: int) -> str:
    """Returns the folder of the newest earlier span's profile, of several the last; else "".

    Args:
        directory: Of the profiles; it need not exist.
        before_span: The newest span of this run.
    """
    if not fileio.exists(directory):
        return ""
    found = []
    for entry in fileio.listdir(directory):
        name = entry.rstrip("/")  # as object stores write folders
        span, _, moment = name.partition("-")
        if span.isdecimal() and moment.isdecimal() and int(span) < before_span:
            found.append((int(span), int(moment), os.path.join(directory, name)))
    for _, _, folder in sorted(found, reverse=True):
        if is_whole(folder):
            return folder
    return ""
