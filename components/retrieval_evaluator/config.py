"""Settings of the evaluation and its gate."""

import re
from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import Field, model_validator

from models.features.spec import FeatureSpec
from models.settings import Settings

# A ranker takes about 90 seconds to compute this many scores.
_MAX_SCORES = 5_000_000_000
_FEWEST_QUERIES = 1_000
# With this many queries, the standard error of a share is at most 0.0032, so more queries would not
# change a decision.
_MOST_QUERIES = 25_000

# A metric can tell rankers apart if a random order reaches less than this share of its best value.
MAX_CHANCE = 0.5

METRIC_PATTERN = re.compile(r"(?:query_)?(hit_rate|precision|ndcg|mrr|map)@([1-9][0-9]*)")

BaselineName = Literal[
    "popularity", "recent_popularity", "last_days_popularity", "newest", "repeat_history",
    "content", "sequential_rules", "item_knn", "session_knn", "svd", "ease",
]  # fmt: skip
NEED_TIMES = ("recent_popularity", "last_days_popularity", "newest")


class EvaluationConfig(Settings):
    """The metrics to compute, and the thresholds of the gate."""

    split: Literal["eval", "test"] = Field(
        "eval", description="Split whose held-out events are predicted."
    )
    targets: tuple[str, ...] = Field(
        (),
        description="Event types of the held-out events that are predicted, from `events.types`. "
        "Default: all whose weight is above 0.",
    )
    protocol: Literal["auto", "from_cut", "rolling"] = Field(
        "auto",
        description="from_cut: one evaluation query per query, with the events that are not held "
        "out as its history. rolling: one per held-out event, with everything before it as its "
        "history. auto: rolling for a temporal split, else from_cut.",
    )
    min_history: int = Field(
        0, ge=0, description="Minimum number of history events of an evaluation query."
    )
    max_queries: int | None = Field(
        None,
        ge=1,
        description="Approximate maximum number of evaluation queries; beyond it, queries are "
        "sampled. If absent, 5,000,000,000 divided by the size of the catalogue, but at least "
        "1,000 and at most 25,000.",
    )
    ks: tuple[int, ...] = Field((1, 5, 10, 50, 100), description="Cutoffs of the metrics.")
    exclude_seen: bool = Field(
        True,
        description="Whether the ranking that the gate checks excludes the history's candidates.",
    )
    min_metrics: Mapping[str, float] = Field(
        default_factory=dict, description="Minimum value by metric, such as hit_rate@10."
    )
    baselines: tuple[BaselineName, ...] | None = Field(
        None,
        description="Baselines to compare with. If absent, all that suit the data and the split: "
        "for a random split, those that ignore the order of events.",
    )
    # 1,682 candidates take 0.2 CPU seconds, and the time grows with the third power.
    max_ease_candidates: int = Field(
        5000, ge=1, description="Largest catalogue for the baseline `ease`."
    )
    # With 500,000 candidates, it took half of the CPU time of an evaluation.
    max_svd_candidates: int = Field(
        250_000, ge=1, description="Largest catalogue for the baseline `svd`."
    )
    baseline_metric: str = Field(
        "hit_rate@10",
        description="Metric on which the model is compared with baselines and the last blessed "
        "model. If a random order reaches half of its best value, the largest smaller cutoff in "
        "`ks` for which it does not is used.",
    )
    min_queries: int = Field(
        20,
        ge=1,
        description="Minimum number of held-out queries for a comparison. With fewer, an interval "
        "says little.",
    )
    min_lift: float = Field(
        0.9,
        ge=0,
        description="The model's metric must exceed this multiple of the best baseline's, with "
        "statistical confidence; 0 turns the check off.",
    )
    min_lift_over_last: float = Field(
        0.9,
        ge=0,
        description="The model's metric must exceed this multiple of the last blessed model's on "
        "the same events, with statistical confidence; 0 turns the check off.",
    )
    max_overlap: float = Field(
        0.95,
        gt=0,
        le=1,
        description="The model's overlap@k, the mean share of the other lists that contain a "
        "returned candidate, must not exceed this; 1 turns the check off. k is that of the metric "
        "that is compared, as in the following settings.",
    )
    min_cold_share: float = Field(
        0.0,
        ge=0,
        description="The cold candidates' share of the model's hits must reach this multiple of "
        "their share of the held-out events; 0 turns the check off. Cold candidates have no "
        "training events.",
    )
    min_coverage_over_last: float = Field(
        0.5,
        ge=0,
        description="The model's coverage@k must reach this multiple of the last blessed model's; "
        "0 turns the check off.",
    )
    max_popularity_shift: float = Field(
        4.0,
        gt=1,
        description="The candidates that the model returns may be at most this many times as "
        "popular as those of the last blessed model, or as unpopular, in the geometric mean of "
        "their training events; .inf turns the check off.",
    )
    confidence: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="Confidence level of the bootstrap intervals.",
    )
    resamples: int = Field(
        1000, ge=100, le=100_000, description="Number of bootstrap resamples of the queries."
    )
    slices: tuple[str, ...] = Field(
        (),
        description="Categorical query features or context; metrics are also reported by value.",
    )

    @model_validator(mode="after")
    def _metrics_are_measured(self) -> "EvaluationConfig":
        if not self.ks or any(k < 1 for k in self.ks) or len(set(self.ks)) != len(self.ks):
            raise ValueError(f"`ks` must be different positive numbers, got {list(self.ks)}")
        for name in (self.baseline_metric, *self.min_metrics):
            match = METRIC_PATTERN.fullmatch(name)
            if match is None or int(match.group(2)) not in self.ks:
                raise ValueError(
                    f"unknown metric {name!r}: use hit_rate, precision, ndcg, mrr or map, "
                    f"optionally with the prefix query_, then @ and one of `ks` {list(self.ks)}"
                )
        return self

    def queries_among(self, num_candidates: int) -> int:
        """Return the approximate maximum number of evaluation queries for this catalogue size."""
        if self.max_queries is not None:
            return self.max_queries
        affordable = _MAX_SCORES // max(num_candidates, 1)
        return min(max(affordable, _FEWEST_QUERIES), _MOST_QUERIES)

    def for_split(self, method: str, spec: FeatureSpec) -> "EvaluationConfig":
        """Return a copy with the `protocol` and `baselines` for a split by `method`."""
        chosen: dict[str, object] = {}
        if self.protocol == "auto":
            # With a temporal split, `rolling` matches production: a request knows everything before
            # the event. Otherwise, the history is everything that is not held out.
            chosen["protocol"] = "rolling" if method == "temporal" else "from_cut"
        if self.baselines is None:
            left_out = self.left_out(method, spec)
            chosen["baselines"] = tuple(n for n in get_args(BaselineName) if n not in left_out)
        return self.model_copy(update=chosen)

    def left_out(self, method: str, spec: FeatureSpec) -> dict[str, str]:
        """Return the baselines that do not suit the data or a split by `method`, with the reasons.

        There are none if `baselines` is set.
        """
        reasons: dict[str, str] = {}
        if self.baselines is not None:
            return reasons
        if not categorical_features(spec):
            reasons["content"] = "`candidates.features` has no categorical feature"
        if method == "random":
            # It holds out events from the middle of a timeline, for which the newest events of the
            # history are not informative.
            reason = "`split.method: random` ignores the order of events"
            reasons |= dict.fromkeys((*NEED_TIMES, "sequential_rules", "session_knn"), reason)
        elif spec.columns.timestamp is None:
            reasons |= dict.fromkeys(NEED_TIMES, "`events.timestamp` is not set")
        return reasons


def categorical_features(spec: FeatureSpec) -> list[str]:
    """Return the candidate features that the baseline `content` compares."""
    return [name for name, found in spec.candidate_features.items() if found.kind == "categorical"]
