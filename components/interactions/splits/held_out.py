"""Record which events were held out, to decide whether a model may have been trained on them.

The spans are not enough to decide this: late data or a changed split setting can move the cut
before the time up to which an earlier model was trained.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from components.interactions.config import SplitConfig

# A property of ingested Examples, of blessings and of recorded models.
HELD_OUT_PROPERTY = "held_out"


@dataclass(frozen=True)
class HeldOut:
    """A description of the events that a split held out: its method and parameters."""

    method: str
    eval_from: str | None = None
    seed: int | None = None
    share: float | None = None
    last_events: int | None = None

    @classmethod
    def of(cls, split: SplitConfig, cut: Mapping[str, str] | None) -> "HeldOut":
        """Describe the events that a split and its cut hold out."""
        if split.method == "random":
            share = split.test_fraction + split.eval_fraction
            return cls(split.method, seed=split.seed, share=share)
        if split.method == "leave_last_out":
            return cls(split.method, last_events=2 if split.with_test else 1)
        return cls(split.method, eval_from=None if cut is None else cut["eval_from"])

    @classmethod
    def parse(cls, text: str) -> "HeldOut | None":
        """Parse the result of `to_json`; return None if it is empty or has unknown fields."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError):
            return None

    def to_json(self) -> str:
        """Return the description as JSON for a property of an artifact."""
        return json.dumps({k: v for k, v in asdict(self).items() if v is not None})


def why_seen(now: HeldOut | None, before: HeldOut | None) -> str:
    """Return a reason why a model may have been trained on held-out events, or "" if it was not.

    `before` describes the events that were held out when the model was trained.
    """
    if now is None or before is None:
        return "there is no record of what was held out from it"
    for name in ("method", "seed"):
        then, today = getattr(before, name), getattr(now, name)
        if then != today:
            return f"its events were held out by `split.{name}: {then}`, now by {today}"
    if (now.share or 0) > (before.share or 0):
        return f"a share of {before.share:g} was held out from it, now it is {now.share:g}"
    if (now.last_events or 0) > (before.last_events or 0):
        return (
            f"{before.last_events} events per query were held out from it, now "
            f"{now.last_events} are"
        )
    if now.eval_from != before.eval_from:
        if now.eval_from is None or before.eval_from is None:
            return "there is no record of the time up to which it was trained"
        if datetime.fromisoformat(before.eval_from) > datetime.fromisoformat(now.eval_from):
            return (
                f"it was trained on events up to {before.eval_from}, and now events from "
                f"{now.eval_from} on are held out"
            )
    return ""
