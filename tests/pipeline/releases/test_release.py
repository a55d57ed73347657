"""The steps from one release to the next, worked out by hand."""

from __future__ import annotations

import pytest

from pipeline.errors import ReleaseError
from pipeline.releases.release import Release


def release(*versions: int, **labels: int) -> Release:
    return Release(frozenset(versions), labels)


def test_the_first_promotion_loads_one_version_for_both_labels() -> None:
    assert Release().promoted(42) == release(42, stable=42, canary=42)


def test_a_promotion_keeps_what_was_stable() -> None:
    now = release(42, stable=42, canary=42).promoted(43)
    assert now == release(42, 43, stable=43, canary=43)
    assert (now.previous, now.canary) == (42, None)


def test_a_second_promotion_forgets_the_version_before_the_last() -> None:
    assert release(42, 43, stable=43, canary=43).promoted(44) == release(
        43, 44, stable=44, canary=44
    )


def test_promoting_what_is_stable_changes_nothing() -> None:
    now = release(42, 43, stable=43, canary=43)
    assert now.promoted(43) == now


def test_a_canary_takes_the_place_of_the_version_before() -> None:
    now = release(42, 43, stable=43, canary=43).with_canary(44)
    assert now == release(43, 44, stable=43, canary=44)
    assert (now.canary, now.previous) == (44, None)


def test_a_canary_is_promoted_and_rolled_back() -> None:
    now = release(43, 44, stable=43, canary=44)
    assert now.promoted(44) == release(43, 44, stable=44, canary=44)
    assert now.rolled_back() == release(43, stable=43, canary=43)
    assert now.promoted(44).rolled_back() == release(43, stable=43, canary=43)


def test_a_rollback_unloads_what_was_taken_back() -> None:
    assert release(42, 43, stable=43, canary=43).rolled_back() == release(42, stable=42, canary=42)


def test_a_rollback_may_name_any_version() -> None:
    assert release(42, 43, stable=43, canary=43).rolled_back(7) == release(7, stable=7, canary=7)


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (Release(), "no version is stable"),
        (release(42, stable=42, canary=42), "stable is 42"),
    ],
)
def test_a_rollback_to_nothing_is_refused(now: Release, message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        now.rolled_back()


def test_a_canary_needs_another_version_that_is_stable() -> None:
    with pytest.raises(ReleaseError, match="no version is stable"):
        Release().with_canary(42)
    with pytest.raises(ReleaseError, match="already the stable one"):
        release(42, stable=42, canary=42).with_canary(42)


def test_labels_of_somebody_else_stay_with_their_versions() -> None:
    now = release(7, 42, stable=42, canary=42, audit=7)
    assert now.promoted(43) == release(7, 42, 43, stable=43, canary=43, audit=7)
    assert now.previous is None


def test_on_the_way_labels_move_between_loaded_versions_only() -> None:
    now, target = release(42, 43, stable=43, canary=43), release(43, 44, stable=44, canary=44)
    assert now.loading(target) == release(43, 44, stable=43, canary=43)
    assert now.relabelled(target) == release(43, 44, stable=44, canary=44)
