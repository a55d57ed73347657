"""Counts of the values of one feature."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

ValueType = Literal["BYTES", "INT", "FLOAT"]
Side = Literal["query", "event", "candidate_id", "candidate"]

# A column with more values is an ID or free text, and counting them would only fill memory.
MAX_COUNTED_VALUES = 100_000


@dataclass
class FeatureTally:
    """Counts over the rows of one feature, updated block by block.

    Attributes:
        name: Key in Examples.
        side: The Examples that have it: both kinds for `candidate_id`, the catalogue for
            `candidate`, and timelines otherwise.
        value_type: Type of its values in Examples.
        is_list: Whether an Example may have several values.
        counts_values: Whether distinct values are counted.
        num_rows: Number of rows read: queries, events or candidates.
        num_missing: Number of rows without a value.
        values: Occurrences by value; None if they are not counted, or if there are more than
            `MAX_COUNTED_VALUES`.
        minimum: Smallest number, or None.
        maximum: Largest number, or None.
    """

    name: str
    side: Side
    value_type: ValueType
    is_list: bool
    counts_values: bool = False
    num_rows: int = 0
    num_missing: int = 0
    values: Counter[str] | None = field(default=None)
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        self.values = Counter() if self.counts_values else None

    @property
    def num_present(self) -> int:
        """The number of rows with a value."""
        return self.num_rows - self.num_missing

    def add_lists(self, lists: Any) -> None:
        """Add rows as Examples have them: lists of values [n]."""
        self.num_rows += len(lists)
        self.num_missing += pc.sum(pc.equal(pc.list_value_length(lists), 0)).as_py() or 0
        self._add(lists.flatten())

    def add_values(self, values: Any) -> None:
        """Add rows with exactly one value each [n]."""
        self.num_rows += len(values)
        self._add(values)

    def _add(self, values: Any) -> None:
        if self.value_type != "BYTES":
            self._widen(pc.min_max(values).as_py())
        elif self.values is not None:
            counted = pc.value_counts(values.cast(pa.string()))
            self.values.update(
                dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True))
            )
            if len(self.values) > MAX_COUNTED_VALUES:
                self.values = None

    def _widen(self, found: dict[str, float | None]) -> None:
        low, high = found["min"], found["max"]
        if low is not None and high is not None:
            self.minimum = low if self.minimum is None else min(self.minimum, low)
            self.maximum = high if self.maximum is None else max(self.maximum, high)
