"""Record which events a split held out, to tell whether another model may have seen them.

Spans alone do not tell: a late day, a backlog or another split setting can move the cut to before
the one up to which an earlier model was trained.
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
    """The events that a model was not trained on, as far as the split method describes them."""

    method: str
    eval_from: str | None = None
    seed: int | None = None
    share: float | None = None
    last_events: int | None = None

    @classmethod
    def of(cls, split: SplitConfig, cut: Mapping[str, str] | None) -> "HeldOut":
        """Return what a split held out."""
        if split.method == "random":
            share = split.test_fraction + split.eval_fraction
            return cls(split.method, seed=split.seed, share=share)
        if split.method == "leave_last_out":
            return cls(split.method, last_events=2 if split.with_test else 1)
        return cls(split.method, eval_from=None if cut is None else cut["eval_from"])

    @classmethod
    def parse(cls, text: str) -> "HeldOut | None":
        """Read the result of `to_json`; None if it is empty or of another version."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError):
            return None

    def to_json(self) -> str:
        """Return a text for a property of an artifact."""
        return json.dumps({k: v for k, v in asdict(self).items() if v is not None})


def why_seen(now: HeldOut | None, before: HeldOut | None) -> str:
    """Return why a model may have seen the events held out now, or "" if it has not."""
    if now is None or before is None:
        return "there is no record of what was held out from it"
    if now.method != before.method:
        return f"its events were held out by `split.method: {before.method}`, now by {now.method}"
    if now.seed != before.seed:
        return f"its events were held out by `split.seed: {before.seed}`, now by {now.seed}"
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
