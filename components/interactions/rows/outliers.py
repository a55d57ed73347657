"""Warnings about numbers that are far from the rest of a feature, such as sentinels."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.interactions.config import Source
from components.interactions.sources.columns import SourceColumn
from models.features.spec import FeatureSpec

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Numbers that programs write for a missing value: -1, -999, 9999 and the limits of integers.
_SENTINELS = frozenset(
    float(np.float32(number))
    for number in (
        *(-1, 2**15 - 1, -(2**15), 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63)),
        *(sign * (10**digits - 1) for digits in range(2, 17) for sign in (1, -1)),
    )
)
_FEWEST_VALUES = 20
# With fewer other values, the number may be one of a few codes, such as -1, 0 and 1.
_FEWEST_OTHERS = 3
_FAR = 1000


class NumberSketch:
    """The distribution of a column of float32, with a relative precision of 1 %.

    `counts` has the number of values by their upper 16 bits, which are the sign, the exponent and
    7 bits of the mantissa. `extremes` has the exact smallest and largest value and their numbers.
    """

    def __init__(self, *columns: pa.ChunkedArray) -> None:
        """Count the values of columns."""
        self.counts: Counter[int] = Counter()
        self.extremes: Counter[float] = Counter()
        for column in columns:
            self.add(column)

    def add(self, column: pa.ChunkedArray) -> None:
        """Add the values of a column without its nulls."""
        values = column.drop_null().to_numpy()
        if len(values):
            counts = np.bincount(values.view(np.uint32) >> 16)
            bins = np.flatnonzero(counts)
            self.counts.update(dict(zip(bins.tolist(), counts[bins].tolist(), strict=True)))
            ends = (float(values.min()), float(values.max()))
            self._add_extremes({end: int((values == end).sum()) for end in ends})

    def merge(self, other: "NumberSketch") -> None:
        """Add the values of another sketch."""
        self.counts.update(other.counts)
        self._add_extremes(other.extremes)

    def _add_extremes(self, found: Mapping[float, int]) -> None:
        self.extremes.update(found)
        for inner in sorted(self.extremes)[1:-1]:
            del self.extremes[inner]

    def warnings(self, setting: str) -> Iterator[str]:
        """Yield a warning if a sentinel is repeated, and one if other values are far away.

        A value is far away if its distance from the median is more than 1,000 times that between
        the quartiles. A sentinel is the smallest or largest value, is farther from the other
        values than these are from each other, or is the only negative one.
        """
        total = sum(self.counts.values())
        if total < _FEWEST_VALUES:
            return
        bins = np.array(list(self.counts), np.uint32) << 16
        values = bins.view(np.float32).astype(np.float64)
        order = np.argsort(values)
        values, counts = values[order], np.array(list(self.counts.values()))[order]
        is_far = self._are_far(values, counts)
        for end, position in ((min(self.extremes), 0), (max(self.extremes), -1)):
            number, others = self.extremes[end], np.delete(values, position)
            if end not in _SENTINELS or not 1 < number == counts[position]:
                continue
            if len(others) < _FEWEST_OTHERS:
                continue
            low, high = others[0], others[-1]
            if abs(others[position] - end) > high - low or end < 0 <= low:
                is_far[position] = False
                yield (
                    f"`{setting}`: {number:,} of {total:,} values are {end:.9g}, and all others "
                    f"are between {low:.3g} and {high:.3g}. If {end:.9g} means a missing "
                    "value, leave these values empty, or add their spelling in CSV files to "
                    "`ingest.missing_values`."
                )
        if is_far.any():
            shown = min(self.extremes) if is_far[0] else max(self.extremes)
            yield (
                f"`{setting}`: {counts[is_far].sum():,} of {total:,} values are far from the "
                f"median, {_quantile(values, counts, 0.5):.3g}, for example {shown:.9g}. Such "
                "values make all others look equal. Correct them, leave them empty, or set "
                f"`{setting}.buckets`."
            )

    @staticmethod
    def _are_far(values: Floats, counts: Ints) -> npt.NDArray[np.bool_]:
        quantiles = [_quantile(values, counts, share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
        fifth, first, median, third, last = quantiles
        # With many equal values, the quartiles may be equal.
        spread = (third - first) or (last - fifth) or abs(median)
        far: npt.NDArray[np.bool_] = (np.abs(values - median) > _FAR * spread) & (spread > 0)
        return far


# The sketches of columns of numbers by source and name.
Sketches = Mapping[tuple[Source, str], NumberSketch]


def sketch_numbers(rows: pa.Table, source: Source, columns: Sequence[SourceColumn]) -> Sketches:
    """Return a sketch of each column of numbers of a table."""
    numbers = [column.key for column in columns if column.kind == "number"]
    return {(source, key): NumberSketch(rows[key]) for key in numbers}


def number_warnings(parts: Iterable[Sketches], spec: FeatureSpec) -> list[str]:
    """Return warnings about the numeric features without buckets, given parts of their rows."""
    total: dict[tuple[Source, str], NumberSketch] = {}
    for part in parts:
        for key, sketch in part.items():
            total.setdefault(key, NumberSketch()).merge(sketch)
    features = {**spec.query_features, **spec.candidate_features}
    return [
        text
        for (source, name), sketch in total.items()
        if name in features and features[name].buckets is None
        for text in sketch.warnings(f"{source}.features.{name}")
    ]


def _quantile(values: Floats, counts: Ints, share: float) -> float:
    cumulated = np.cumsum(counts)
    return float(values[np.searchsorted(cumulated, share * cumulated[-1])])
