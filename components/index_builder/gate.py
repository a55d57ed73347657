"""Whether an index may be served, and which threshold decided."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.index_builder.config import IndexConfig


@dataclass(frozen=True)
class Check:
    """One threshold.

    Attributes:
        name: Of what was measured.
        value: Measured.
        relation: `at least` or `at most`.
        threshold: Of the configuration.
        setting: Its name there.
        passed: False also where the value is not a number.
    """

    name: str
    value: float
    relation: str
    threshold: float
    setting: str
    passed: bool

    def __str__(self) -> str:
        """As a sentence for a person."""
        verb = self.relation if self.passed else f"not {self.relation}"
        return f"{self.name} {self.value:.4f} is {verb} `{self.setting}` {self.threshold:g}"


def check_index(recall: float, hit_rate_loss: float, config: IndexConfig) -> list[Check]:
    """Holds what was measured on the judging queries against the thresholds; fails closed.

    Args:
        recall: Mean recall@k against exact search.
        hit_rate_loss: Hit rate of held-out events by exact search less that by the index; NaN
            where none was held out.
        config: With the thresholds.
    """
    return [
        Check(
            f"recall@{config.k}",
            recall,
            "at least",
            config.recall_target,
            "index.recall_target",
            recall >= config.recall_target,
        ),
        Check(
            f"loss of hit_rate@{config.k}",
            hit_rate_loss,
            "at most",
            config.max_hit_rate_loss,
            "index.max_hit_rate_loss",
            hit_rate_loss <= config.max_hit_rate_loss,
        ),
    ]


def to_json(checks: list[Check]) -> Mapping[str, Any]:
    """As plain data."""
    return {
        "passed": all(check.passed for check in checks),
        "checks": [asdict(check) for check in checks],
    }
