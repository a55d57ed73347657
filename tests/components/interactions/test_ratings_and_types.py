"""A least rating, and what was done, from files to Examples."""

from typing import Any

import pytest
from pydantic import ValidationError

from components.interactions.config import SplitConfig
from components.interactions.errors import BadRowsError, NoInputError
from models.features.spec import ColumnsConfig, FeatureSpec

LEAVE_LAST = SplitConfig(method="leave_last_out")
RATED = "q,c,t,r\nu,a,1,4.1\nu,b,2,4.0\nu,c,3,5\nu,d,4,1\nv,a,1,4.1\nv,e,2,4.2\nw,a,1,2\n"


def test_events_below_the_least_rating_are_as_if_they_had_not_been(ingestion: Any):
    ingestion.write("events.csv", RATED)
    found = ingestion("events.csv", LEAVE_LAST, rating="r", min_rating=4.1)
    # 4.1 itself is enough. Neither d nor w is history, target, candidate or query.
    assert found.timelines("train") == {"u": "a", "v": "a"}
    assert found.timelines("eval") == {"u": "a c*", "v": "a e*"}
    assert found.candidates() == ["a"]
    assert found.report["events_below_min_rating"] == 3
    assert (found.report["events"], found.report["queries"]) == (4, 2)


def test_without_a_least_rating_every_event_counts(ingestion: Any):
    ingestion.write("events.csv", RATED)
    found = ingestion("events.csv", LEAVE_LAST, rating="r")
    assert found.report["events_below_min_rating"] == 0
    assert found.report["events"] == 7


def test_a_low_rating_does_not_displace_its_duplicate(ingestion: Any):
    ingestion.write("events.csv", "q,c,t,r\nu,a,1,1\nu,a,1,5\nu,b,2,5\n")
    found = ingestion("events.csv", LEAVE_LAST, rating="r", min_rating=3)
    assert found.timelines("eval") == {"u": "a b*"}
    assert found.report["duplicate_events_dropped"] == 0


def test_a_least_rating_that_nobody_reaches_is_an_error(ingestion: Any):
    ingestion.write("events.csv", RATED)
    with pytest.raises(NoInputError, match=r"min_rating: 6`; all 7 have lower"):
        ingestion("events.csv", LEAVE_LAST, rating="r", min_rating=6)


def test_a_least_rating_needs_ratings(ingestion: Any):
    with pytest.raises(ValidationError, match=r"needs `events\.rating`"):
        ingestion.config("events.csv", LEAVE_LAST, min_rating=3)


def typed(ingestion: Any) -> Any:
    config = ingestion.config("events.csv", LEAVE_LAST)
    columns = ColumnsConfig(query_id="q", candidate_id="c", timestamp="t", event_type="did")
    return config.model_copy(update={"spec": FeatureSpec(columns=columns)})


def test_event_types_stand_beside_their_events(ingestion: Any):
    ingestion.write("events.csv", "q,c,t,did\nu,b,2,buy\nu,a,1,view\nu,c,3,küssen\n")
    found = ingestion.run(typed(ingestion))
    (example,) = found.examples("eval")
    assert (example["c"], example["event_type"]) == (["a", "b", "c"], ["view", "buy", "küssen"])
    assert all(candidate["event_type"] == [] for candidate in found.examples("candidates"))


def test_an_event_without_its_type_is_a_bad_row(ingestion: Any):
    ingestion.write("events.csv", "q,c,t,did\nu,a,1,view\nu,b,2,\n")
    with pytest.raises(BadRowsError, match="did"):
        ingestion.run(typed(ingestion))
