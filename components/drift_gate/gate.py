"""Decides which spans of a run are compared, with which, and what comes of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from components.drift_gate.accepted_spans import Delivery, LetPass, delivered
from components.drift_gate.comparison import Finding, compare
from components.drift_gate.config import DriftConfig
from components.drift_gate.span_profile import Profile, has_profile, take_profile
from components.interactions.config import IngestConfig
from components.interactions.sources.files import find_files
from components.interactions.stable_hash import Hashes

log = logging.getLogger(__name__)

# So many new spans beside the newest are compared in one run, each of which is read for it.
MOST_COMPARED = 100


class LostProfileError(Exception):
    """The profile of a span that was let pass is gone, so there is nothing to hold others against.

    Running again helps where it is back.
    """


@dataclass
class Verdict:
    """What came of the comparisons of a run.

    Attributes:
        report: What the report file holds.
        passed: What is new in the ledger, with the profiles taken; the newest span last.
        drifted: A sentence for each span that moved too far.
        is_refused: Whether that ends the run.
    """

    report: dict[str, Any]
    passed: list[tuple[LetPass, Profile | None]] = field(default_factory=list)
    drifted: list[str] = field(default_factory=list)
    is_refused: bool = False


class Gate:
    """Holds the spans of a run against those that were let pass.

    Args:
        config: With chosen spans that include interactions.
        drift: The thresholds, and what they do.
        known: Hashes of the candidates known now: see `Profile`.
        let_pass: The ledger.
        may_lack_profiles: Whether a profile whose folder is gone is no measure; else it is an
            error.
    """

    def __init__(
        self,
        config: IngestConfig,
        drift: DriftConfig,
        known: Hashes,
        let_pass: Sequence[LetPass],
        *,
        may_lack_profiles: bool,
    ) -> None:
        self._config = config
        self._drift = drift
        self._known = known
        self._let_pass = {entry.delivery: entry for entry in let_pass}
        self._may_lack_profiles = may_lack_profiles
        self._window, self._snapshots = delivered(config)
        self._files = find_files(config)
        # Of this run; None: taken as it was.
        self._passed: dict[Delivery, Profile | None] = {}
        last = let_pass[-1].profile if let_pass else ""
        self._last = Profile.read(last) if last and has_profile(last) else None

    def hold(self) -> Verdict:
        """Compares every delivery of the window that has not been let pass, oldest first.

        Raises:
            LostProfileError: A span's measure was let pass, and its profile is gone.
        """
        *earlier, newest = self._window
        new = [delivery for delivery in earlier if delivery not in self._let_pass]
        # Before the first span that was ever noted there is nothing to compare with; a first run
        # takes its newest span alone for the measure.
        oldest = min((delivery.span for delivery in self._let_pass), default=newest.span)
        compared = [delivery for delivery in new if delivery.span > oldest][-MOST_COMPARED:]
        taken_as_is = [delivery for delivery in new if delivery not in compared]
        if taken_as_is:
            log.warning("%d spans before those compared are taken as they are", len(taken_as_is))
            self._passed.update(dict.fromkeys(taken_as_is))
        verdict = Verdict({})
        reports = [self._hold_earlier(delivery, verdict) for delivery in compared]
        verdict.report = {
            **self._hold_newest(newest, verdict),
            "earlier": reports,
            "taken_as_is": len(taken_as_is),
        }
        verdict.passed = [
            (LetPass(delivery, self._snapshots if delivery == newest else ""), profile)
            for delivery, profile in self._passed.items()
        ]
        return verdict

    def _hold_earlier(self, delivery: Delivery, verdict: Verdict) -> dict[str, Any]:
        profile = self._take(delivery)
        good = self._measure_of(delivery)
        findings = self._compare(profile, good, catalogue=False)
        if self._judge(profile, good, findings, verdict):
            self._passed[delivery] = profile
        return _report(profile, good, findings)

    def _hold_newest(self, delivery: Delivery, verdict: Verdict) -> dict[str, Any]:
        entry = self._let_pass.get(delivery)
        own = None
        if entry is not None and entry.profile:
            own = self._read(entry)
        is_same = own is not None and entry is not None and entry.snapshots == self._snapshots
        if own is not None and is_same:
            profile = replace(own, known=self._known)
        else:
            profile = take_profile(self._config, self._files, delivery.span, self._known)
            profile.version, profile.files = delivery.version, delivery.files
        # Where only the snapshots are new, the events must not be judged again.
        good = own if own is not None and not is_same else self._measure_of(delivery)
        findings = self._compare(profile, good)
        self._judge(profile, good, findings, verdict, was_let_pass=is_same)
        self._passed[delivery] = profile
        return {**_report(profile, good, findings), "let_pass_before": is_same}

    def _compare(
        self, profile: Profile, good: Profile | None, *, catalogue: bool = True
    ) -> list[Finding]:
        if good is None:
            return []
        return compare(profile, good, self._drift, self._config.spec, catalogue=catalogue)

    def _judge(
        self,
        profile: Profile,
        good: Profile | None,
        findings: Sequence[Finding],
        verdict: Verdict,
        *,
        was_let_pass: bool = False,
    ) -> bool:
        """Returns whether a span is let pass, and notes what moved too far."""
        exceeded = [str(finding) for finding in findings if finding.is_exceeded]
        if good is None or not exceeded:
            return True
        told = f"span {profile.shown_span} has drifted from {good.shown_span}"
        verdict.drifted.append(f"{told}: {'; '.join(exceeded)}")
        if was_let_pass or self._drift.action != "stop":
            return True
        verdict.is_refused = True
        return False

    def _measure_of(self, delivery: Delivery) -> Profile | None:
        """Returns the profile of the nearest earlier span that was let pass."""
        # Of several deliveries of a span the one that is read now, else the last.
        of_span: dict[int, Delivery] = {}
        for good in (*self._let_pass, *self._passed):
            if good.span < delivery.span and of_span.get(good.span) not in self._window:
                of_span[good.span] = good
        for _, good in sorted(of_span.items(), reverse=True):
            if (profile := self._passed.get(good)) is not None:
                return profile
            entry = self._let_pass.get(good)
            if entry is None:
                continue  # taken as it is in this very run
            if entry.profile:
                if (profile := self._read(entry)) is not None:
                    return profile
            elif good in self._window:
                self._passed[good] = profile = self._take(good)
                return profile
        return None

    def _read(self, entry: LetPass) -> Profile | None:
        if has_profile(entry.profile):
            return Profile.read(entry.profile)
        message = (
            f"the profile of span {entry.delivery.span}, which was let pass, is gone: "
            f"{entry.profile}"
        )
        if not self._may_lack_profiles:
            raise LostProfileError(
                f"{message}. Put the folder back where it was, or run once with `--set "
                "drift.action=warn`, which goes on without it"
            )
        log.warning(message)
        return None

    def _take(self, delivery: Delivery) -> Profile:
        """Takes the profile of an earlier span, with the catalogue of the last run."""
        profile = take_profile(
            self._config, self._files, delivery.span, self._known, catalogue=False
        )
        profile.version, profile.files = delivery.version, delivery.files
        if self._last is not None:
            profile.known = self._last.known
            if "candidates" in self._last.statistics:
                profile.statistics["candidates"] = self._last.statistics["candidates"]
        return profile


def _report(profile: Profile, good: Profile | None, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "span": profile.shown_span,
        "version": profile.version,
        "baseline": None if good is None else good.shown_span,
        "events": profile.num_events,
        "findings": [finding.to_json() for finding in findings],
    }
