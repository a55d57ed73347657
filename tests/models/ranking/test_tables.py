"""Counts of small logs, worked by hand, and their order in another catalogue."""

from pathlib import Path

import numpy as np
import pytest

from models.ranking import cooccurrence
from models.ranking.tables import RankingTables
from tests.builders import ranking_tables

A, B, C, D, NEW = range(5)
TIMELINES = [[A, B, A], [B, C, B, B]]


@pytest.fixture(scope="module")
def tables() -> RankingTables:
    found = ranking_tables(TIMELINES, 4)
    assert isinstance(found, RankingTables)
    return found


def test_popularity_and_ages(tables: RankingTables):
    np.testing.assert_allclose(np.expm1(tables.popularity), [2, 4, 1, 0], rtol=1e-5)
    # The newest twentieth of seven events is one, which stands for seven.
    np.testing.assert_allclose(np.expm1(tables.recent), [0, 7, 0, 0], rtol=1e-5)
    # Events 0 to 6 in the order of their times; D has none.
    np.testing.assert_allclose(tables.age, [1, 1 - 1 / 7, 1 - 4 / 7, 0.5], rtol=1e-5)
    np.testing.assert_allclose(tables.idle, [1 - 2 / 7, 1 - 6 / 7, 1 - 4 / 7, 0.5], rtol=1e-5)


def test_successors_are_weighted_by_distance_and_discounted_by_popularity(tables: RankingTables):
    assert tables.successors[B, :3].tolist() == [C, A, -1]  # not B itself
    discount = np.array([1.0, 2.0]) ** -0.25
    np.testing.assert_allclose(tables.successor_values[B, :2], np.log1p(discount), rtol=1e-5)
    # B follows C at the distances 1 and 2.
    np.testing.assert_allclose(tables.successor_values[C, 0], np.log1p(1.5 * 4**-0.25), rtol=1e-5)


def test_similar_candidates_share_timelines(tables: RankingTables):
    assert tables.similar[A, :2].tolist() == [B, -1]
    np.testing.assert_allclose(tables.similar_values[A, 0], 1 / (np.sqrt(1 * 2) + 10), rtol=1e-5)
    assert tables.similar[D, 0] == -1


def test_another_catalogue_keeps_what_is_known_of_its_candidates(
    tables: RankingTables, tmp_path: Path
):
    tables.save(str(tmp_path / "tables"))
    # The new catalogue is C, NEW, B; A and D are gone.
    moved = RankingTables.load(str(tmp_path / "tables")).reordered(np.array([C, -1, B]))
    np.testing.assert_allclose(np.expm1(moved.popularity), [1, 0, 4], rtol=1e-5)
    np.testing.assert_allclose(moved.age[1], 0.5)
    assert moved.successors[0, 0] == 2
    # B's other successor, A, cannot be found any more.
    assert set(moved.successors[2].tolist()) == {0, -1}
    assert set(moved.successors[1].tolist()) == {-1}


def test_timelines_that_ended_last_are_kept_whole():
    from models.ranking.tables import TrainingEvents

    events = TrainingEvents(np.array([A, B, C, D]), np.array([1, 9, 5, 6]), np.array([0, 2, 2, 4]))
    newest = events.newest(3)
    assert newest.candidates.tolist() == [A, B]
    assert newest.offsets.tolist() == [0, 2, 2, 2]


def test_the_size_of_parts_does_not_matter(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(3)
    timelines = [rng.integers(0, 30, rng.integers(1, 25)).tolist() for _ in range(60)]
    whole = ranking_tables(timelines, 30)
    monkeypatch.setattr(cooccurrence, "_PAIRS_PER_CHUNK", 200)
    for name, values in vars(ranking_tables(timelines, 30)).items():
        np.testing.assert_array_equal(values, getattr(whole, name), name)
