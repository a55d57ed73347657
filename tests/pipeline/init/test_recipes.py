"""The settings that `init` chooses from statistics of the events."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.errors import InitError
from pipeline.init.recipes import (
    EventStatistics,
    batches,
    batches_of_frequent,
    batches_of_sets,
    choices,
    facts,
)

SESSIONS = EventStatistics(710_000, 130_000, 37_000, repeat_share=0.35, order_share=0.9)


def _chosen(statistics: EventStatistics, preset: str | None = None) -> dict[str, Any]:
    known = facts(statistics, preset)
    return {choice.setting: choice.value for choice in choices(statistics, known)}


def test_sessions_of_rare_candidates() -> None:
    chosen = _chosen(SESSIONS)
    assert chosen["training.objective"] == "next_candidate"
    assert chosen["model.similarity"] == "cosine"
    assert chosen["evaluation.exclude_seen"] is False
    assert chosen["ranking.enabled"] is True


def test_frequent_candidates_have_their_own_embeddings_in_histories() -> None:
    chosen = _chosen(EventStatistics(100_000, 943, 1_682, order_share=0.5))
    assert chosen["model.similarity"] == "dot"
    assert "model.share_candidate_ids" not in chosen
    assert (chosen["training.batch_size"], chosen["training.epochs"]) == (64, 8)
    assert "evaluation.exclude_seen" not in chosen


def test_popular_candidates_have_a_bias() -> None:
    assert "model.candidate_bias" not in _chosen(SESSIONS)
    few_have_most = replace(SESSIONS, head_share=0.27)
    assert _chosen(few_have_most)["model.candidate_bias"] is True
    assert "model.candidate_bias" not in _chosen(replace(few_have_most, order_share=None))


def test_ranking_needs_about_3_000_events_to_learn_from() -> None:
    few = replace(SESSIONS, num_events=29_999)
    assert "ranking.enabled" not in _chosen(few)
    assert _chosen(replace(few, num_events=30_000))["ranking.enabled"] is True


@pytest.mark.parametrize("order_share", [None, 0.02])
def test_events_without_order_are_sets(order_share: float | None) -> None:
    chosen = _chosen(replace(SESSIONS, order_share=order_share))
    assert chosen["training.objective"] == "reconstruct"
    assert chosen["model.history_encoder"] == "mean"
    assert "ranking.enabled" not in chosen
    # Early stopping measures queries that training has not seen.
    assert chosen["training.validation_fraction"] == 0.0
    times = order_share is not None
    assert chosen["split.method"] == ("temporal" if times else "leave_last_out")
    # Without times, ingestion drops repeats as duplicates.
    assert ("evaluation.exclude_seen" in chosen) is times
    # The drafted file ends with the section `evaluation`.
    assert list(chosen)[-1] == ("evaluation.exclude_seen" if times else "tuning.space")


def test_a_preset_replaces_what_the_statistics_say() -> None:
    assert _chosen(SESSIONS, "ratings")["training.objective"] == "reconstruct"
    assert "evaluation.exclude_seen" not in _chosen(SESSIONS, "news")
    known = facts(SESSIONS, "news")
    reasons = {each.setting: each.reason for each in choices(SESSIONS, known)}
    assert reasons["model.history_encoder"] == "preset news"
    without_times = replace(SESSIONS, order_share=None)
    chosen = _chosen(without_times, "sessions")
    assert chosen["training.objective"] == "next_candidate"
    assert chosen["split.method"] == "leave_last_out"
    with pytest.raises(InitError, match="one of sessions, ratings, purchases, news, got 'songs'"):
        facts(SESSIONS, "songs")


def test_the_reason_is_the_statistic() -> None:
    reasons = {each.setting: each.reason for each in choices(SESSIONS, facts(SESSIONS))}
    assert reasons["model.dimension"] == "19 events per candidate"
    assert reasons["evaluation.exclude_seen"].startswith("35% of the events")
    fresh = facts(replace(SESSIONS, fresh_share=0.34))["fresh"]
    assert fresh.holds
    assert fresh.because.startswith("34% of the newest events")


@pytest.mark.parametrize(
    ("num_queries", "num_events", "batch_size", "epochs"),
    [
        (130_000, 710_000, 512, 4),  # sessions: at least four epochs
        (943, 100_000, 16, 10),  # users
        (400, 2_000, 32, 20),  # few events
        (1, 1_000, 1, 20),  # one long timeline
        (390_000, 10_000_000, 64, 3),
        (4_000_000, 100_000_000, 64, 1),
    ],
)
def test_batches_and_epochs_go_by_the_data(
    num_queries: int, num_events: int, batch_size: int, epochs: int
) -> None:
    assert batches(EventStatistics(num_events, num_queries, 1)) == (batch_size, epochs)


def test_batches_of_frequent_candidates_are_larger() -> None:
    assert batches_of_frequent(EventStatistics(100_000, 943, 1_682)) == (64, 8)


@pytest.mark.parametrize(
    ("num_queries", "batch_size", "epochs"),
    [(1, 1, 20), (1_885, 128, 20), (30_000, 128, 8), (4_000_000, 128, 1)],
)
def test_batches_of_sets_go_by_the_number_of_timelines(
    num_queries: int, batch_size: int, epochs: int
) -> None:
    statistics = EventStatistics(20 * num_queries, num_queries, 1)
    assert batches_of_sets(statistics) == (batch_size, epochs)
