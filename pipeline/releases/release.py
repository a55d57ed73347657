"""Which versions are loaded and which of them carry the labels, and what follows next.

`stable` is what clients ask for, `canary` what some of them try first; with nothing on trial both
are one version, so that who asks for either is answered. After a promotion the version that was
stable before stays loaded without a label: a rollback then moves labels and loads nothing. So two
versions are in memory, three never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.releases.errors import ReleaseError

STABLE = "stable"
CANARY = "canary"


@dataclass(frozen=True)
class Release:
    """What a server holds of one model.

    Attributes:
        versions: Loaded versions.
        labels: Version by label; each is among `versions`.
    """

    versions: frozenset[int] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def stable(self) -> int | None:
        """The version that clients ask for."""
        return self.labels.get(STABLE)

    @property
    def canary(self) -> int | None:
        """The version on trial, if there is one beside the stable one."""
        canary = self.labels.get(CANARY)
        return None if canary == self.stable else canary

    @property
    def previous(self) -> int | None:
        """The version that a rollback goes back to: loaded, without a label."""
        unlabelled = self.versions - set(self.labels.values())
        return max(unlabelled, default=None)

    def promoted(self, version: int) -> Release:
        """Makes a version the stable one; a canary ends, what was stable stays loaded."""
        return self._with(
            version, version, self.stable if self.stable != version else self.previous
        )

    def with_canary(self, version: int) -> Release:
        """Gives a version to those who ask for `canary`.

        Raises:
            ReleaseError: No version is stable, or this one is.
        """
        if self.stable is None:
            raise ReleaseError(
                "there is no stable version beside which a canary could be tried; "
                "promote the one that is served now first: `two-tower promote --version N`"
            )
        if self.stable == version:
            raise ReleaseError(f"version {version} is the stable one already")
        return self._with(self.stable, version)

    def rolled_back(self, version: int | None = None) -> Release:
        """Takes back the last step: the canary, else the last promotion.

        Args:
            version: What is to be stable instead.

        Raises:
            ReleaseError: There is nothing to go back to.
        """
        if version is not None:
            return self._with(version, version)
        if self.canary is not None and self.stable is not None:
            return self._with(self.stable, self.stable)
        if self.previous is None or self.stable is None:
            stable = "no version is stable" if self.stable is None else f"stable is {self.stable}"
            raise ReleaseError(
                f"there is nothing to go back to: {stable}, and no version from before is loaded; "
                "name one with --version"
            )
        return self._with(self.previous, self.previous)

    def loading(self, target: Release) -> Release:
        """The step before `target`: its versions are loaded, the labels stay where they are."""
        return Release(target.versions | set(self.labels.values()), self.labels)

    def relabelled(self, target: Release) -> Release:
        """The step in which the labels move: requests under way may still hold the old ones."""
        return Release(target.versions | set(self.labels.values()), target.labels)

    def _with(self, stable: int, canary: int, kept: int | None = None) -> Release:
        # Labels of somebody else's stay as they are.
        labels = {**self.labels, STABLE: stable, CANARY: canary}
        versions = {*labels.values(), *(() if kept is None else (kept,))}
        return Release(frozenset(versions), labels)
