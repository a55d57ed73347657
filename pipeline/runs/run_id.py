"""Names of runs."""

import datetime


def new_run_id() -> str:
    """Returns an id for a run that sorts by its start, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
