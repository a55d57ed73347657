"""Statistics of the values of one feature."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

ValueType = Literal["BYTES", "INT", "FLOAT"]
Side = Literal["query", "event", "candidate_id", "candidate"]

# A column with more values is an ID or free text, so counting them only wastes memory.
MAX_COUNTED_VALUES = 100_000


@dataclass
class FeatureTally:
    """Statistics of one feature, which are updated with each block of rows.

    Attributes:
        name: Key of the feature in Examples.
        side: Determines which Examples have the feature: those of the catalogue for `candidate`,
            all for `candidate_id`, and those of timelines otherwise.
        value_type: Type of the values in Examples.
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
        """Add rows that are lists of values, as in Examples; shape [rows]."""
        self.num_rows += len(lists)
        self.num_missing += pc.sum(pc.equal(pc.list_value_length(lists), 0)).as_py() or 0
        self._add(lists.flatten())

    def add_values(self, values: Any) -> None:
        """Add rows with exactly one value each; shape [rows]."""
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
