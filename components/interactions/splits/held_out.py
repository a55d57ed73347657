"""What a split held out, in a few words: enough to tell whether a model may have seen it.

Spans alone do not tell: a day that comes late, a backlog, or another setting of the split can move
the moment from which events are held out back, before the one that an earlier model was trained up
to.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from components.interactions.config import SplitConfig

# Of Examples as they are ingested, of a blessing, and of a model that was found by its record.
HELD_OUT_PROPERTY = "held_out"


@dataclass(frozen=True)
class HeldOut:
    """The events that a model was not trained on.

    Attributes:
        method: Of the split.
        eval_from: temporal: the first moment that is held out, ISO 8601.
        seed: random: of the hash.
        share: random: of the hashes, the share that is held out.
        last_events: leave_last_out: how many of a query.
    """

    method: str
    eval_from: str | None = None
    seed: int | None = None
    share: float | None = None
    last_events: int | None = None

    @classmethod
    def of(cls, split: SplitConfig, cut: Mapping[str, str] | None) -> "HeldOut":
        """Returns what a split held out.

        Args:
            split: The settings.
            cut: As the report of ingestion has it.
        """
        if split.method == "random":
            share = split.test_fraction + split.eval_fraction
            return cls(split.method, seed=split.seed, share=share)
        if split.method == "leave_last_out":
            return cls(split.method, last_events=2 if split.with_test else 1)
        return cls(split.method, eval_from=None if cut is None else cut["eval_from"])

    @classmethod
    def parse(cls, text: str) -> "HeldOut | None":
        """Reads what `to_json` wrote; None where that is nothing, or of another version."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError):
            return None

    def to_json(self) -> str:
        """As text, for a property of an artifact."""
        known: dict[str, Any] = {k: v for k, v in asdict(self).items() if v is not None}
        return json.dumps(known)


def why_seen(now: HeldOut | None, before: HeldOut | None) -> str:
    """Returns why a model may have been trained on what is held out now; empty where it was not.

    Args:
        now: What is held out.
        before: What was held out of the model.
    """
    if now is None or before is None:
        return "it is not known what was held out of it"
    if now.method != before.method:
        return f"its events were held out by `split.method: {before.method}`, now by {now.method}"
    if now.seed != before.seed:
        return f"its events were held out by `split.seed: {before.seed}`, now by {now.seed}"
    if (now.share or 0) > (before.share or 0):
        return f"a share of {before.share:g} was held out of it, and {now.share:g} is now"
    if (now.last_events or 0) > (before.last_events or 0):
        return (
            f"of each query {before.last_events} events were held out of it, and "
            f"{now.last_events} are now"
        )
    if now.eval_from != before.eval_from:
        if now.eval_from is None or before.eval_from is None:
            return "it is not known up to which moment it was trained"
        if datetime.fromisoformat(before.eval_from) > datetime.fromisoformat(now.eval_from):
            return (
                f"it was trained on events up to {before.eval_from}, and those from "
                f"{now.eval_from} on are held out now"
            )
    return ""
