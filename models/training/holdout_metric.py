"""Metrics over events, by name, for a model that is being fitted."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Where a metric is named: the loss instead.
LOSS = "loss"
_NAME = re.compile(r"(hit_rate|mrr|ndcg)@([1-9][0-9]*)")


@dataclass(frozen=True)
class HoldoutMetric:
    """A metric of the evaluation, over events."""

    kind: str
    k: int

    @classmethod
    def parse(cls, name: str) -> "HoldoutMetric":
        """Reads a name such as ndcg@10.

        Raises:
            ValueError: It is none of hit_rate@K, mrr@K and ndcg@K.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise ValueError(f"the metric must be hit_rate@K, mrr@K or ndcg@K, got {name!r}")
        return cls(found[1], int(found[2]))

    def of(self, ranks: npt.NDArray[np.int64]) -> float:
        """Returns the metric of ranks `[num_events]`, from 1; 0 where there is none."""
        if len(ranks) == 0:
            return 0.0
        hit = ranks <= self.k
        gain = {"hit_rate": 1.0, "mrr": 1.0 / ranks, "ndcg": 1.0 / np.log2(1.0 + ranks)}
        return float((hit * gain[self.kind]).mean())
