"""The steps from one release to the next, worked out by hand."""

from __future__ import annotations

import pytest

from pipeline.errors import ReleaseError
from pipeline.releases.release import Release


def release(*versions: int, **labels: int) -> Release:
    return Release(frozenset(versions), labels)


# A release may keep the version before the stable one loaded.
ONE = release(42, stable=42, canary=42)
TWO = release(42, 43, stable=43, canary=43)
ON_TRIAL = release(43, 44, stable=43, canary=44)


@pytest.mark.parametrize(
    ("now", "stable", "canary", "previous"),
    [(ONE, 42, None, None), (TWO, 43, None, 42), (ON_TRIAL, 43, 44, None)],
)
def test_versions_have_roles(
    now: Release, stable: int, canary: int | None, previous: int | None
) -> None:
    assert (now.stable, now.canary, now.previous) == (stable, canary, previous)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Release().promoted(42), ONE),
        (ONE.promoted(43), TWO),
        # The version before the last one is unloaded.
        (TWO.promoted(44), release(43, 44, stable=44, canary=44)),
        (TWO.promoted(43), TWO),
        (TWO.with_canary(44), ON_TRIAL),
        (ON_TRIAL.promoted(44), release(43, 44, stable=44, canary=44)),
        (ON_TRIAL.rolled_back(), release(43, stable=43, canary=43)),
        (ON_TRIAL.promoted(44).rolled_back(), release(43, stable=43, canary=43)),
        (TWO.rolled_back(), ONE),
        (TWO.rolled_back(7), release(7, stable=7, canary=7)),
    ],
)
def test_each_step_gives_the_next_release(found: Release, expected: Release) -> None:
    assert found == expected


@pytest.mark.parametrize(
    ("now", "message"), [(Release(), "no version is stable"), (ONE, "stable is 42")]
)
def test_a_rollback_to_nothing_is_refused(now: Release, message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        now.rolled_back()


def test_a_canary_needs_another_version_that_is_stable() -> None:
    with pytest.raises(ReleaseError, match="no version is stable"):
        Release().with_canary(42)
    with pytest.raises(ReleaseError, match="already the stable one"):
        ONE.with_canary(42)


def test_labels_of_somebody_else_stay_with_their_versions() -> None:
    now = release(7, 42, stable=42, canary=42, audit=7)
    assert now.promoted(43) == release(7, 42, 43, stable=43, canary=43, audit=7)
    assert now.previous is None


def test_on_the_way_labels_move_between_loaded_versions_only() -> None:
    target = release(43, 44, stable=44, canary=44)
    assert TWO.loading(target) == release(43, 44, stable=43, canary=43)
    assert TWO.relabelled(target) == target
