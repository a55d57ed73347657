"""Compare the spans of a run with accepted ones, and decide whether they are accepted too."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from components.drift_gate.accepted_spans import AcceptedSpan, Delivery, deliveries
from components.drift_gate.comparison import Finding, compare
from components.drift_gate.config import DriftConfig
from components.drift_gate.span_profile import Profile, has_profile, take_profile
from components.interactions.config import IngestConfig
from components.interactions.sources.files import find_files
from components.interactions.stable_hash import Hashes

log = logging.getLogger(__name__)

# Maximum number of spans to compare in a run besides the newest, because each is read in full.
MOST_COMPARED = 100


class LostProfileError(Exception):
    """The profile of an accepted span is missing; a retry succeeds once it is restored."""


@dataclass
class Verdict:
    """The decision on the spans of a run.

    Attributes:
        report: Content of the drift report.
        accepted: Spans to record as accepted unless the run is refused, with their profiles; None
            if a span has no profile. The newest span is last.
        drifted: One sentence for each span that differs too much.
        is_refused: Whether the run must fail.
    """

    report: dict[str, Any]
    accepted: list[tuple[AcceptedSpan, Profile | None]] = field(default_factory=list)
    drifted: list[str] = field(default_factory=list)
    is_refused: bool = False


class Gate:
    """Compare the spans of a run with accepted ones.

    Args:
        config: The configuration of ingestion, with chosen spans of interactions.
        drift: The thresholds and the action.
        known: Sorted hashes of the currently known candidates; see `Profile.known`.
        accepted: The spans that earlier runs accepted.
        may_lack_profiles: Whether to skip a span whose profile is missing, instead of failing.
    """

    def __init__(
        self,
        config: IngestConfig,
        drift: DriftConfig,
        known: Hashes,
        accepted: Sequence[AcceptedSpan],
        *,
        may_lack_profiles: bool,
    ) -> None:
        self._config = config
        self._drift = drift
        self._known = known
        self._record = {entry.delivery: entry for entry in accepted}
        self._may_lack_profiles = may_lack_profiles
        self._window, self._snapshots = deliveries(config)
        self._files = find_files(config)
        # Spans accepted in this run with their profiles; None if accepted without a profile.
        self._accepted: dict[Delivery, Profile | None] = {}
        last = accepted[-1].profile if accepted else ""
        self._last = Profile.read(last) if last and has_profile(last) else None

    def judge(self) -> Verdict:
        """Compare the newest delivery and all earlier ones that are not accepted yet, oldest first.

        Raises:
            LostProfileError: The profile of a baseline is missing.
        """
        *earlier, newest = self._window
        new = [delivery for delivery in earlier if delivery not in self._record]
        # Spans before the oldest accepted one have no baseline. The first run has no accepted span.
        oldest = min((delivery.span for delivery in self._record), default=newest.span)
        compared = [delivery for delivery in new if delivery.span > oldest][-MOST_COMPARED:]
        unchecked = [delivery for delivery in new if delivery not in compared]
        if unchecked:
            log.warning("%d earlier spans are accepted without a comparison", len(unchecked))
            self._accepted.update(dict.fromkeys(unchecked))
        verdict = Verdict({})
        reports = [self._judge_earlier(delivery, verdict) for delivery in compared]
        verdict.report = {
            **self._judge_newest(newest, verdict),
            "earlier": reports,
            "accepted_unchecked": len(unchecked),
        }
        verdict.accepted = [
            (AcceptedSpan(delivery, self._snapshots if delivery == newest else ""), profile)
            for delivery, profile in self._accepted.items()
        ]
        return verdict

    def _judge_earlier(self, delivery: Delivery, verdict: Verdict) -> dict[str, Any]:
        profile = self._take(delivery)
        good = self._baseline_of(delivery)
        findings = self._compare(profile, good, catalogue=False)
        if self._note(profile, good, findings, verdict):
            self._accepted[delivery] = profile
        return _report(profile, good, findings)

    def _judge_newest(self, delivery: Delivery, verdict: Verdict) -> dict[str, Any]:
        entry = self._record.get(delivery)
        own = self._read(entry) if entry is not None and entry.profile else None
        is_same = own is not None and entry is not None and entry.snapshots == self._snapshots
        if own is not None and is_same:
            profile = replace(own, known=self._known)
        else:
            profile = take_profile(self._config, self._files, delivery.span, self._known)
            profile.version, profile.files = delivery.version, delivery.files
        # If only the snapshots changed, the baseline is the accepted profile of the same events.
        good = own if own is not None and not is_same else self._baseline_of(delivery)
        findings = self._compare(profile, good)
        self._note(profile, good, findings, verdict, was_accepted=is_same)
        self._accepted[delivery] = profile
        return {**_report(profile, good, findings), "accepted_before": is_same}

    def _compare(
        self, profile: Profile, good: Profile | None, *, catalogue: bool = True
    ) -> list[Finding]:
        if good is None:
            return []
        return compare(profile, good, self._drift, self._config.spec, catalogue=catalogue)

    def _note(
        self,
        profile: Profile,
        good: Profile | None,
        findings: Sequence[Finding],
        verdict: Verdict,
        *,
        was_accepted: bool = False,
    ) -> bool:
        """Add the violated thresholds to `verdict`, and return whether the span is accepted."""
        exceeded = [str(finding) for finding in findings if finding.is_exceeded]
        if good is None or not exceeded:
            return True
        verdict.drifted.append(
            f"span {profile.shown_span} has drifted from span {good.shown_span}: "
            + "; ".join(exceeded)
        )
        if was_accepted or self._drift.action != "stop":
            return True
        verdict.is_refused = True
        return False

    def _baseline_of(self, delivery: Delivery) -> Profile | None:
        """Return the profile of the nearest earlier accepted span, or None."""
        # Of several deliveries of a span, prefer the one in the window, then the last accepted.
        of_span: dict[int, Delivery] = {}
        for good in (*self._record, *self._accepted):
            if good.span < delivery.span and of_span.get(good.span) not in self._window:
                of_span[good.span] = good
        for _, good in sorted(of_span.items(), reverse=True):
            if (profile := self._accepted.get(good)) is not None:
                return profile
            entry = self._record.get(good)
            if entry is None:
                continue  # accepted in this run without a profile
            if entry.profile:
                if (profile := self._read(entry)) is not None:
                    return profile
            elif good in self._window:
                self._accepted[good] = profile = self._take(good)
                return profile
        return None

    def _read(self, entry: AcceptedSpan) -> Profile | None:
        if has_profile(entry.profile):
            return Profile.read(entry.profile)
        message = (
            f"the profile of the accepted span {entry.delivery.span} must be in {entry.profile}, "
            "but is gone"
        )
        if not self._may_lack_profiles:
            raise LostProfileError(
                f"{message}. Put the folder back, or run once without it with "
                "`--set drift.action=warn`"
            )
        log.warning(message)
        return None

    def _take(self, delivery: Delivery) -> Profile:
        """Profile an earlier span of the window, with the catalogue of the last accepted run."""
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
