"""The gate of an index: decides whether it is good enough to serve, and explains a refusal."""

import math
from collections.abc import Sequence

from components.gates import Check
from components.index_builder.config import IndexConfig


def check_index(
    recall: float, hit_rate_loss: float, config: IndexConfig, num_ranked: int | None = None
) -> list[Check]:
    """Check the mean recall@k and the loss of hit rate, both against exact search.

    The loss is NaN, which fails, if no held-out event has a candidate of the catalogue. With a
    ranking stage, `num_ranked` is the number of candidates that it gets: the recall is that of
    these, and the loss that of the ranked list.
    """

    def check(name: str, value: float, relation: str, setting: str) -> Check:
        threshold: float = getattr(config, setting)
        passed = value >= threshold if relation == "at least" else value <= threshold
        setting = f"index.{setting}"
        return Check(name, value, relation, threshold, setting, passed, f" ({setting})")

    loss = f"the loss of hit_rate@{config.k}" + (" of the ranked list" if num_ranked else "")
    return [
        check(f"recall@{num_ranked or config.k}", recall, "at least", "recall_target"),
        check(loss, hit_rate_loss, "at most", "max_hit_rate_loss"),
    ]


def refusal(checks: Sequence[Check], config: IndexConfig, index: str) -> str:
    """Return the failed checks of an index and advice as one message; empty if all passed."""
    failed = [check for check in checks if not check.passed]
    if not failed:
        return ""
    if any(math.isnan(check.value) for check in failed):
        advice = "hold out events of candidates in the catalogue (settings of `split`)"
    elif config.leaves_to_search:
        advice = "raise index.leaves_to_search, or remove it to have it tuned"
    else:
        advice = "tune the index with more queries (index.num_recall_queries)"
    return (
        f"the index gate refused the {index}: {'; '.join(map(str, failed))}. To change this: "
        f"{advice}, or set index.backend: exact"
    )
