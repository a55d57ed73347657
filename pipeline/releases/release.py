"""A release: the loaded versions of a model, their labels, and the allowed transitions.

Clients request the label `stable`; some of them request `canary` first. Without a canary, both
labels point to the same version, so requests for either label succeed. After a promotion, the
previous stable version stays loaded without a label, so a rollback only moves labels. At most two
versions are in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import ReleaseError

STABLE = "stable"
CANARY = "canary"


@dataclass(frozen=True)
class Release:
    """The loaded versions of one model, and the version of each label, which is one of them."""

    versions: frozenset[int] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def stable(self) -> int | None:
        """The version with the label `stable`, which clients request, or None."""
        return self.labels.get(STABLE)

    @property
    def canary(self) -> int | None:
        """The version with the label `canary`, or None if it is the stable version."""
        canary = self.labels.get(CANARY)
        return None if canary == self.stable else canary

    @property
    def previous(self) -> int | None:
        """The newest loaded version without a label, which a rollback returns to, or None."""
        unlabelled = self.versions - set(self.labels.values())
        return max(unlabelled, default=None)

    def promoted(self, version: int) -> Release:
        """Return the release after a promotion; the previous stable version stays loaded."""
        return self._with(
            version, version, self.stable if self.stable != version else self.previous
        )

    def with_canary(self, version: int) -> Release:
        """Return the release after `version` became the canary.

        Raises:
            ReleaseError: No version is stable, or `version` is the stable one.
        """
        if self.stable is None:
            raise ReleaseError(
                "a canary needs a stable version next to it, but no version is stable. Promote the "
                "one that is served now first: `two-tower promote --version N`"
            )
        if self.stable == version:
            raise ReleaseError(f"version {version} is already the stable one")
        return self._with(self.stable, version)

    def rolled_back(self, version: int | None = None) -> Release:
        """Return the release without its canary or, if it has none, before its last promotion.

        If a version is given, return the release in which it is stable instead.

        Raises:
            ReleaseError: There is neither a canary nor a previous version.
        """
        if version is not None:
            return self._with(version, version)
        if self.canary is not None and self.stable is not None:
            return self._with(self.stable, self.stable)
        if self.previous is None or self.stable is None:
            stable = "no version is stable" if self.stable is None else f"stable is {self.stable}"
            raise ReleaseError(
                f"a rollback needs an earlier version that is still loaded, but {stable} and there "
                "is no other. Name a version with --version"
            )
        return self._with(self.previous, self.previous)

    def loading(self, target: Release) -> Release:
        """Return the first step of a rollout: the versions of `target` are loaded."""
        return Release(target.versions | set(self.labels.values()), self.labels)

    def relabelled(self, target: Release) -> Release:
        """Return the second step of a rollout: labels move, and old versions stay loaded."""
        return Release(target.versions | set(self.labels.values()), target.labels)

    def _with(self, stable: int, canary: int, kept: int | None = None) -> Release:
        # Labels with other names do not change.
        labels = {**self.labels, STABLE: stable, CANARY: canary}
        versions = {*labels.values(), *(() if kept is None else (kept,))}
        return Release(frozenset(versions), labels)
