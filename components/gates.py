"""The parts that gates share: checks, and reports without NaN."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """A measured value that must be `relation` (at least, at most, above, below) `threshold`.

    Attributes:
        setting: Setting that defines the threshold.
        passed: Whether the check passed. NaN fails, and a comparison of two models must pass with
            statistical confidence.
        detail: Explanation of the threshold or of a missing value; empty if there is none.
    """

    name: str
    value: float
    relation: str
    threshold: float
    setting: str
    passed: bool
    detail: str = ""

    def __str__(self) -> str:
        """Return the check as a readable sentence."""
        value, threshold = (
            f"{number:,}" if isinstance(number, int) else f"{number:.4f}"
            for number in (self.value, self.threshold)
        )
        if math.isnan(self.value):
            return f"{self.name} must be {self.relation} {threshold}, but has no value{self.detail}"
        must = "and must" if self.passed else "but must"
        return f"{self.name} is {value}, {must} be {self.relation} {threshold}{self.detail}"

    def to_json(self) -> dict[str, Any]:
        """Return the check as plain data for a report."""
        return {**asdict(self), "text": str(self)}


def without_nan(content: Any) -> Any:
    """Return plain data in which null replaces NaN and infinities, which JSON lacks."""
    if isinstance(content, Mapping):
        return {name: without_nan(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
