"""What is known of one feature's values after some rows of its file."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

ValueType = Literal["BYTES", "INT", "FLOAT"]
Side = Literal["query", "event", "candidate_id", "candidate"]

# Above this a column is an id or free text; its values would only fill memory.
MAX_COUNTED_VALUES = 100_000


@dataclass
class FeatureTally:
    """Counts over the rows of one feature, added to block by block.

    Attributes:
        name: Its key in Examples.
        side: Which Examples have it: `candidate_id` both kinds, `candidate` the catalogue, the
            others timelines.
        value_type: Of its values in Examples.
        is_list: Whether an Example may hold several values.
        counts_values: Whether distinct values are counted.
        num_rows: Rows read: queries, events or candidates.
        num_missing: How many of them have no value.
        values: Occurrences by value; None: not counted, or more than `MAX_COUNTED_VALUES`.
        minimum: Of numbers; None: there are none.
        maximum: Of numbers; None: there are none.
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
        """Rows with a value."""
        return self.num_rows - self.num_missing

    def add_lists(self, lists: Any) -> None:
        """Adds rows as Examples hold them, lists of values [n]."""
        self.num_rows += len(lists)
        self.num_missing += pc.sum(pc.equal(pc.list_value_length(lists), 0)).as_py() or 0
        self._add(lists.flatten())

    def add_values(self, values: Any) -> None:
        """Adds rows of exactly one value each [n]."""
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
