"""Joins of the events with the catalogue and the queries: shares, limits and likely causes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pyarrow as pa

from components.interactions.config import SOURCE_SETTINGS, DataConfig, Source
from components.interactions.errors import UnmatchedIdsError
from components.interactions.rows.id_normalization import Remedy, causes, find_remedy, in_order

# If fewer of the IDs meet, that is likely to be a coincidence.
_LEAST_SHARE = 0.1
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Join:
    """The number of events, and of distinct IDs in them, that have no row in a file.

    Attributes:
        rows_without_events: Number of rows whose ID is in no event, which is normal for cold items.
        example: An unmatched ID of the events and an ID of the file; None below the limits.
        remedy: The normalisations that make unmatched IDs equal to IDs of the file, if there are.
    """

    source: Source
    num_events: int
    unmatched_events: int
    num_ids: int
    unmatched_ids: int
    rows_without_events: int
    example: tuple[str, str] | None = None
    remedy: Remedy | None = None

    @property
    def unmatched_share(self) -> float:
        """The larger of the shares of events and of distinct IDs without a row."""
        return max(
            self.unmatched_events / max(self.num_events, 1),
            self.unmatched_ids / max(self.num_ids, 1),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts and, if there are, the example and the remedy."""
        found: dict[str, Any] = {
            key: value for key, value in vars(self).items() if isinstance(value, int)
        }
        if self.example is not None:
            found["example"] = list(self.example)
        if self.remedy is not None:
            found["normalize_ids"] = list(self.remedy.normalizations)
        return found


def make_join(
    data: DataConfig,
    source: Source,
    counts: Mapping[str, int],
    num_rows: int,
    unmatched: Sequence[str],
    row_ids: Iterable[Any],
) -> Join:
    """Return a join, with an example and a remedy if it is above a limit.

    Args:
        data: The settings, which have the limits.
        source: The source of the file, which has one row for each of its IDs.
        counts: The attributes `num_events`, `unmatched_events`, `num_ids` and `unmatched_ids`.
        num_rows: Number of rows of the file.
        unmatched: Some of the unmatched IDs.
        row_ids: Blocks of the IDs of the file, which are read only if they are needed.
    """
    join = Join(
        source,
        num_events=counts["num_events"],
        unmatched_events=counts["unmatched_events"],
        num_ids=counts["num_ids"],
        unmatched_ids=counts["unmatched_ids"],
        rows_without_events=num_rows - (counts["num_ids"] - counts["unmatched_ids"]),
    )
    if join.unmatched_share <= min(data.warn_unmatched_ids, data.max_unmatched_ids):
        return join
    blocks = iter(row_ids)
    first = next(blocks, None)
    if first is None:
        return join
    remedy = find_remedy(pa.array(unmatched, pa.string()), chain([first], blocks))
    if remedy is None or remedy.share < _LEAST_SHARE:
        return replace(join, example=(unmatched[0], first[0].as_py()))
    return replace(join, example=remedy.pair, remedy=remedy)


def check_joins(joins: Sequence[Join], data: DataConfig) -> None:
    """Check that few enough events and IDs lack a row.

    Raises:
        UnmatchedIdsError: The share of a join is above `max_unmatched_ids`.
    """
    limit = data.max_unmatched_ids
    if any(join.unmatched_share > limit for join in joins):
        found = "\n".join(f"  {text}." for text in _descriptions(joins, data).values())
        raise UnmatchedIdsError(
            f"At most {_percent(limit)} of the events, and of the IDs in them, may lack a row in "
            f"`queries.file` or `candidates.file`, but:\n{found}\nFix the files or the settings, "
            "or accept this with `ingest.max_unmatched_ids: 1`."
        )


def join_warnings(joins: Sequence[Join], data: DataConfig) -> list[str]:
    """Return a warning for each join whose share is above `warn_unmatched_ids`."""
    limit = data.max_unmatched_ids
    stops = f". A run stops above {_percent(limit)} (`ingest.max_unmatched_ids`)"
    return [
        text + (stops if join.unmatched_share > limit else "")
        for join, text in _descriptions(joins, data).items()
    ]


def _descriptions(joins: Sequence[Join], data: DataConfig) -> dict[Join, str]:
    limit = min(data.warn_unmatched_ids, data.max_unmatched_ids)
    above = [join for join in joins if join.unmatched_share > limit]
    # One setting applies to all sources, so each description gives the value that fixes all.
    needed = {name for join in above if join.remedy for name in join.remedy.normalizations}
    setting = f"`ingest.normalize_ids: [{', '.join(in_order({*needed, *data.normalize_ids}))}]`"
    return {join: _describe(join, setting) for join in above}


def _describe(join: Join, setting: str) -> str:
    noun = "query" if join.source == "queries" else "candidate"
    events, ids = join.unmatched_events / join.num_events, join.unmatched_ids / join.num_ids
    text = (
        f"{_percent(events)} of {join.num_events:,} events and {_percent(ids)} of their "
        f"{join.num_ids:,} {noun} IDs have no row in `{SOURCE_SETTINGS[join.source]}`"
    )
    if join.example is not None:
        mine, other = (repr(id_[:_SHOWN_CHARACTERS]) for id_ in join.example)
        text += f". For example, an event has {mine} and the file has {other}"
    if join.remedy is None:
        return f"{text}. Neither spaces, case, zeros nor Unicode forms explain the difference"
    return (
        f"{text}. The likely cause is {causes(join.remedy.normalizations)}: with {setting}, "
        f"{_percent(join.remedy.share)} of these IDs have a row"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
