import re
from typing import Any

import pytest

from components.interactions.config import SplitConfig
from components.interactions.splits.held_out import HeldOut, why_seen

CUT = {"eval_from": "2026-11-20T00:00:00+00:00"}


def split(**settings: Any) -> HeldOut:
    return HeldOut.of(SplitConfig.model_validate(settings), CUT)


def test_a_record_survives_json() -> None:
    for held_out in (
        split(method="temporal"),
        split(method="random", seed=7),
        split(method="leave_last_out", with_test=True),
    ):
        assert HeldOut.parse(held_out.to_json()) == held_out
        assert why_seen(held_out, held_out) == ""
    for text in ("", "{", "[]", "1", '{"eval_from": "x"}', '{"method": "random", "new": 1}'):
        assert HeldOut.parse(text) is None


# Whether a model of the one split may be gone on from under the other.
@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        ({"method": "random"}, {"method": "random", "seed": 7}, "`split.seed: 42`, now by 7"),
        ({"method": "random"}, {"method": "random", "eval_fraction": 0.2}, "0.1 was .* is 0.2"),
        ({"method": "random"}, {"method": "random", "test_fraction": 0.1}, "0.1 was .* is 0.2"),
        ({"method": "random", "eval_fraction": 0.2}, {"method": "random"}, ""),
        ({"method": "temporal", "seed": 7}, {"method": "temporal"}, ""),
        ({"method": "random"}, {"method": "temporal"}, "`split.method: random`, now by temporal"),
        (
            {"method": "leave_last_out"},
            {"method": "leave_last_out", "with_test": True},
            "1 events .* now 2 are",
        ),
        ({"method": "leave_last_out", "with_test": True}, {"method": "leave_last_out"}, ""),
    ],
)
def test_a_model_may_have_seen_what_was_not_held_out_from_it(
    before: dict[str, Any], now: dict[str, Any], why: str
) -> None:
    found = why_seen(split(**now), split(**before))
    assert bool(found) == bool(why)
    assert re.search(why, found)


def test_times_are_compared_as_times() -> None:
    # As text, the one with microseconds comes after.
    early = HeldOut("temporal", eval_from="2026-11-20T00:00:00.500000+00:00")
    late = HeldOut("temporal", eval_from="2026-11-20T00:00:01+00:00")
    assert why_seen(late, early) == ""
    assert "events from 2026-11-20T00:00:00.500000+00:00 on" in why_seen(early, late)
    assert why_seen(early, None)
    assert why_seen(None, early)
