"""The gate of an index: decides whether it is good enough to serve, and explains a refusal."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.index_builder.config import IndexConfig


@dataclass(frozen=True)
class Check:
    """One check: `value` must be `relation` (at least, at most) `threshold`.

    Attributes:
        setting: Setting that defines the threshold.
        passed: Whether the check passed; False if the value is NaN.
    """

    name: str
    value: float
    relation: str
    threshold: float
    setting: str
    passed: bool

    def __str__(self) -> str:
        """Return the check as a readable sentence."""
        must = "and must" if self.passed else "but must"
        return (
            f"{self.name} is {self.value:.4f}, {must} be {self.relation} {self.threshold:g} "
            f"({self.setting})"
        )


def check_index(recall: float, hit_rate_loss: float, config: IndexConfig) -> list[Check]:
    """Check the recall and the loss of hit rate against their thresholds; NaN fails.

    Args:
        recall: Mean recall@k against exact search.
        hit_rate_loss: Hit rate of exact search minus that of the index; NaN if there are no
            held-out events.
        config: Settings with the thresholds.
    """
    target, most = config.recall_target, config.max_hit_rate_loss
    return [
        Check(
            f"recall@{config.k}",
            recall,
            "at least",
            target,
            "index.recall_target",
            recall >= target,
        ),
        Check(
            f"the loss of hit_rate@{config.k}",
            hit_rate_loss,
            "at most",
            most,
            "index.max_hit_rate_loss",
            hit_rate_loss <= most,
        ),
    ]


def to_json(checks: list[Check]) -> Mapping[str, Any]:
    """Return the checks as plain data for the report."""
    return {
        "passed": all(check.passed for check in checks),
        "checks": [asdict(check) for check in checks],
    }
