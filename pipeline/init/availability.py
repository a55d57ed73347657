"""Choice of the columns with the times between which a candidate is available."""

import contextlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from pipeline.errors import InitError
from pipeline.init.format_detection import find_times

_SUFFIX = r"(_?(at|on|from|date|day|time|datetime|ts|timestamp))?$"
_FROM = r"publish(ed)?|publication|release(d)?|list(ed|ing)|launch(ed)?|available|valid|added"
_UNTIL = r"delist(ed|ing)|unpublish(ed)?|remov(ed|al)|withdrawn|discontinued|expir(ed|es|y|ation)"
_NAMES = {
    "available_from": re.compile(rf"(?i)^(date_?|time_?)?({_FROM}){_SUFFIX}"),
    "available_until": re.compile(
        rf"(?i)^(date_?|time_?)?({_UNTIL}){_SUFFIX}|^(available|valid|online)_?(until|till|to)$"
    ),
}
# 1990: flags and years would be times of 1970.
_EARLIEST_US = 631_152_000_000_000
# A time that does not fit more events than this is not that of the availability.
_FITTING_SHARE = 0.95


class DraftedTime(NamedTuple):
    """A setting of `candidates` with the column of the times, and the reason."""

    setting: str
    column: str
    reason: str


def draft_availability(
    candidates: pl.DataFrame, id_column: str, events: pl.DataFrame, unit: str
) -> Iterator[DraftedTime]:
    """Yield the columns of the candidates whose names and times are those of their availability.

    `events` has the columns `id` of the candidate and `time`, in microseconds. `unit` is that of
    the events, which the times must have too. At least 95% of the events must be at times at which
    their candidate is available.
    """
    for setting, name in _NAMES.items():
        for column in candidates.drop(id_column).iter_columns():
            if not name.search(column.name) or column.dtype.is_nested():
                continue
            with contextlib.suppress(InitError):
                times = find_times(column.drop_nulls(), unit).times_us
                if times.null_count() or (times.quantile(0.5) or 0.0) < _EARLIEST_US:
                    continue
                is_known = column.is_not_null()
                known = pl.DataFrame({"id": candidates[id_column].filter(is_known), "limit": times})
                both = events.join(known.cast({"id": pl.String}), on="id")
                is_later = both["time"] >= both["limit"]
                fitting = is_later if setting == "available_from" else ~is_later
                share = int(fitting.sum()) / max(both.height, 1)
                if share >= _FITTING_SHARE:
                    side = "after" if setting == "available_from" else "before"
                    yield DraftedTime(setting, column.name, f"{share:.0%} of the events are {side}")
                    break
