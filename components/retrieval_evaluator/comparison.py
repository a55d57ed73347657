"""The model beside another contender."""

from dataclasses import dataclass

from components.retrieval_evaluator.bootstrap import Interval

MODEL = "model"
LAST_BLESSED = "last_blessed"


@dataclass(frozen=True)
class Comparison:
    """The model's metric less `factor` times that of `against`.

    Attributes:
        metric: Such as hit_rate@10.
        against: A contender.
        factor: What its metric is multiplied by.
        interval: Of the difference, from the same resamples of queries for both.
    """

    metric: str
    against: str
    factor: float
    interval: Interval
