"""Settings of the evaluation and of its gate."""

import re
from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import Field, model_validator

from models.settings import Settings

# A contender scores so many pairs of question and candidate in about a minute and a half.
_SCORES = 5_000_000_000
_LEAST_QUESTIONS = 1_000
# A share's standard error is then at most .0032: more questions would change no decision.
_MOST_QUESTIONS = 25_000

METRIC_PATTERN = re.compile(r"(?:query_)?(hit_rate|precision|ndcg|mrr|map)@([1-9][0-9]*)")

Baseline = Literal[
    "popularity",
    "recent_popularity",
    "repeat_history",
    "sequential_rules",
    "item_knn",
    "session_knn",
]


class EvaluationConfig(Settings):
    """What is measured, and what a model must reach to be served."""

    split: Literal["eval", "test"] = Field(
        "eval", description="Whose held-out events are predicted."
    )
    protocol: Literal["auto", "from_cut", "rolling"] = Field(
        "auto",
        description="from_cut: one question a query, from what precedes the split; rolling: one a "
        "held-out event, from everything before it; auto: rolling where the split is temporal.",
    )
    min_history: int = Field(
        0, ge=0, description="Ask only where the history has at least so many events."
    )
    max_questions: int | None = Field(
        None,
        ge=1,
        description="About how many questions to ask: where there are more, queries are drawn, "
        "each with all its questions; if absent 25,000, of a large catalogue 5,000,000,000 divided "
        "by its size, but at least 1,000.",
    )
    ks: tuple[int, ...] = Field((1, 5, 10, 50, 100), description="Cut-offs of the metrics.")
    exclude_seen: bool = Field(
        True,
        description="Whether candidates of the history are left out of the ranking that decides.",
    )
    min_metrics: Mapping[str, float] = Field(
        default_factory=dict, description="Least values, by names like hit_rate@10."
    )
    baselines: tuple[Baseline, ...] | None = Field(
        None,
        description="What the model is compared with; if absent all that suit the split: those "
        "that look at the order of events are left out of a random one.",
    )
    baseline_metric: str = Field(
        "hit_rate@10", description="On which the model is held against the other contenders."
    )
    min_queries: int = Field(
        20,
        ge=1,
        description="Fewest held-out queries to compare contenders by; an interval over fewer says "
        "little.",
    )
    min_lift: float = Field(
        0.9,
        ge=0,
        description="The model's metric must surely be above this many times the best baseline's; "
        "0: off.",
    )
    min_lift_over_last: float = Field(
        0.9,
        ge=0,
        description="The model's metric must surely be above this many times the last blessed "
        "model's, on the same events; 0: off.",
    )
    confidence: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="Share of the bootstrap's resamples that an interval holds; the gate looks at "
        "its lower end.",
    )
    resamples: int = Field(
        1000, ge=100, le=100_000, description="How often the bootstrap draws the queries."
    )
    slices: tuple[str, ...] = Field(
        (), description="Categorical query features by whose values metrics are also told apart."
    )

    @model_validator(mode="after")
    def _metrics_are_measured(self) -> "EvaluationConfig":
        if not self.ks or any(k < 1 for k in self.ks) or len(set(self.ks)) != len(self.ks):
            raise ValueError(f"`ks` must be different positive numbers, got {list(self.ks)}")
        for name in (self.baseline_metric, *self.min_metrics):
            match = METRIC_PATTERN.fullmatch(name)
            if match is None or int(match.group(2)) not in self.ks:
                raise ValueError(
                    f"no metric {name!r}: use hit_rate, precision, ndcg, mrr or map, with or "
                    f"without query_ before it, @ and one of `ks` {list(self.ks)}"
                )
        return self

    def questions_among(self, num_candidates: int) -> int:
        """Returns about how many questions to ask over a catalogue of so many candidates."""
        if self.max_questions is not None:
            return self.max_questions
        affordable = _SCORES // max(num_candidates, 1)
        return min(max(affordable, _LEAST_QUESTIONS), _MOST_QUESTIONS)

    def for_split(self, method: str, *, has_times: bool) -> "EvaluationConfig":
        """Returns these settings with everything chosen that depends on the split.

        Args:
            method: Of the split.
            has_times: Whether events have timestamps.
        """
        chosen: dict[str, object] = {}
        if self.protocol == "auto":
            # What is asked in production knows everything up to now. Where a hash holds events
            # out, or each query's last one, everything before the split is all there is.
            chosen["protocol"] = "rolling" if method == "temporal" else "from_cut"
        if self.baselines is None:
            # A random split holds out events from the middle of a timeline: what the newest events
            # of the history are then says nothing.
            unfit = {"recent_popularity", "sequential_rules", "session_knn"}
            if method != "random":
                unfit = set() if has_times else {"recent_popularity"}
            chosen["baselines"] = tuple(name for name in get_args(Baseline) if name not in unfit)
        return self.model_copy(update=chosen)
