"""Shares of unmatched IDs, their limits, and normalisation, through a real ingestion."""

from typing import Any

import pytest

from components.interactions.buckets import Sizing
from components.interactions.errors import UnmatchedIdsError
from models.features.spec import FeatureConfig, FeaturesConfig

TINY = Sizing(block_bytes=64, bucket_bytes=96, batch_events=3)
SOURCES = {"candidates": "items.csv", "queries": "users.csv"}
COLOUR = FeaturesConfig(candidate={"colour": FeatureConfig(kind="categorical")})


def _write(ingestion: Any, events: list[tuple[str, str]], items: list[str], users: list[str]):
    numbered = enumerate(events, start=1_700_000_000)  # in 2023: a plausible time
    lines = [f"{query},{candidate},{time}\n" for time, (query, candidate) in numbered]
    ingestion.write("events.csv", "q,c,t\n" + "".join(lines))
    ingestion.write("items.csv", "c,colour\n" + "".join(f"{id_},red\n" for id_ in items))
    ingestion.write("users.csv", "q\n" + "".join(f"{id_}\n" for id_ in users))


@pytest.mark.parametrize("sizing", [Sizing(), TINY])
def test_shares_count_events_and_ids_of_every_split(ingestion: Any, sizing: Sizing) -> None:
    # c2 is held out and has no row; u0 has no row and half of the events.
    events = [(f"u{i % 2 * (i % 5)}", f"c{i % 2}") for i in range(40)] + [("u1", "c2")]
    _write(ingestion, events, ["c0", "c1", "cold", "x"], ["u1", "u2", "u3", "u4"])
    report = ingestion("events.csv", sizing=sizing, **SOURCES).report
    of_queries, of_candidates = report["joins"]["queries"], report["joins"]["candidates"]
    unmatched = sum(query == "u0" for query, _ in events)
    assert {key: of_queries[key] for key in ("num_events", "unmatched_events")} == {
        "num_events": 41,
        "unmatched_events": unmatched,
    }
    assert (of_queries["num_ids"], of_queries["unmatched_ids"]) == (5, 1)
    assert of_queries["rows_without_events"] == 0
    assert (of_candidates["unmatched_events"], of_candidates["unmatched_ids"]) == (1, 1)
    assert (of_candidates["num_ids"], of_candidates["rows_without_events"]) == (3, 2)
    assert report["candidates_added_from_train_events"] == 0


@pytest.mark.parametrize("sizing", [Sizing(), TINY])
def test_unmatched_ids_stop_the_run_until_they_are_normalized(
    ingestion: Any, sizing: Sizing
) -> None:
    events = [(f"{i % 4:03}", f"{i % 10}.0") for i in range(40)]
    _write(ingestion, events, [str(i) for i in range(10)], [str(i) for i in range(4)])
    run = {**SOURCES, "sizing": sizing, "features": COLOUR, "max_unmatched_ids": 0.5}
    with pytest.raises(UnmatchedIdsError) as caught:
        ingestion("events.csv", **run)
    message = str(caught.value)
    assert "100% of 40 events and 100% of their 10 candidate IDs have no row" in message
    assert "the file has '1'" in message or "the file has '0'" in message
    assert message.count("`ingest.normalize_ids: [float_suffix, leading_zeros]`") == 2
    names = ("float_suffix", "leading_zeros")
    found = ingestion("events.csv", normalize_ids=names, **run)
    assert found.report["warnings"] == []
    assert found.candidates() == [str(i) for i in range(10)]
    assert {example["colour"][0] for example in found.examples("candidates")} == {"red"}
    assert {example["q"][0] for example in found.examples("train")} == {"0", "1", "2", "3"}


def test_rows_that_become_one_id_follow_the_rule_for_repeated_rows(ingestion: Any) -> None:
    _write(ingestion, [("u", "A"), ("u", "b"), ("v", "a")], ["a", "b"], ["u", "v"])
    ingestion.write("items.csv", "c,colour\na,red\nA ,red\nb,red\nB,blue\n")
    options = {"candidates": "items.csv", "normalize_ids": ("case", "strip"), "features": COLOUR}
    report = ingestion("events.csv", bad_rows="reject", **options).report
    assert report["candidates"] == 2
    assert report["repeated_candidate_rows"] == 1
    assert report["rejected_rows"] == {"contradicts an earlier row with this ID": 1}


def test_a_smaller_share_is_a_warning_with_an_example(ingestion: Any) -> None:
    events = [("u", f"c{i}") for i in range(8)] + [("u", "C8"), ("u", "gone")]
    _write(ingestion, events, [f"c{i}" for i in range(9)], ["u"])
    # `only_listed` has a warning of its own.
    run = {"candidates": "items.csv", "max_unmatched_ids": 0.5, "only_listed": False}
    (warning,) = ingestion("events.csv", **run).report["warnings"]
    assert "20% of 10 events and 20% of their 10 candidate IDs have no row" in warning
    assert "an event has 'C8' and the file has 'c8'" in warning
    assert "`ingest.normalize_ids: [case]`, 50% of these IDs" in warning
    assert ingestion("events.csv", **run, warn_unmatched_ids=0.2).report["warnings"] == []
