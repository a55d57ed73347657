"""Compare the spans of a run with accepted ones, and decide whether they are accepted too."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from components.drift_gate.accepted_spans import AcceptedSpan, Delivery, deliveries
from components.drift_gate.comparison import Finding, Sides, compare_known
from components.drift_gate.config import DriftConfig
from components.drift_gate.span_profile import Profile, has_profile, take_profile
from components.errors import LostProfileError
from components.interactions.config import IngestConfig, Source
from components.interactions.sources.files import find_files
from components.interactions.stable_hash import Hashes
from models.features.spec import EVENT_TYPE_KEY, RATING_KEY, FeatureSpec

log = logging.getLogger(__name__)

# Maximum number of spans to compare in a run besides the newest, because each is read in full.
MOST_COMPARED = 100


class Gate:
    """Compare the spans of a run with accepted ones.

    `config` has chosen spans of interactions, and `known` the sorted hashes of the currently known
    candidates. If it `may_lack_profiles`, a span whose profile is missing is skipped.
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
        if config.chosen_spans is None or not config.chosen_spans.interactions:
            raise ValueError("drift needs chosen spans of interactions")
        self.drifted: list[str] = []
        self.is_refused = False
        self._config = config
        self._drift = drift
        self._known = known
        self._record = {entry.delivery: entry for entry in accepted}
        self._may_lack_profiles = may_lack_profiles
        self._window, self._snapshots = deliveries(config, config.chosen_spans)
        self._files = find_files(config)
        # Spans accepted in this run with their profiles; None if accepted without a profile.
        self._accepted: dict[Delivery, Profile | None] = {}
        last = accepted[-1].profile if accepted else ""
        self._last = Profile.read(last) if last and has_profile(last) else None

    @property
    def accepted(self) -> list[tuple[AcceptedSpan, Profile | None]]:
        """The spans to record as accepted unless the run is refused; the newest is last."""
        return [
            (AcceptedSpan(found, self._snapshots if found == self._window[-1] else ""), profile)
            for found, profile in self._accepted.items()
        ]

    def judge(self) -> dict[str, Any]:
        """Compare all deliveries that are not accepted yet, oldest first, and return the report.

        Raises:
            LostProfileError: The profile of a reference is missing.
        """
        *earlier, newest = self._window
        new = [delivery for delivery in earlier if delivery not in self._record]
        # Spans before the oldest accepted one have no reference, as all those of the first run.
        oldest = min((delivery.span for delivery in self._record), default=newest.span)
        compared = [delivery for delivery in new if delivery.span > oldest][-MOST_COMPARED:]
        unchecked = [delivery for delivery in new if delivery not in compared]
        if unchecked:
            log.warning("%d earlier spans are accepted without a comparison", len(unchecked))
            self._accepted.update(dict.fromkeys(unchecked))
        reports = [
            self._judge(delivery, self._take(delivery), self._reference_of(delivery))
            for delivery in compared
        ]
        return {
            **self._judge_newest(newest),
            "earlier": reports,
            "accepted_unchecked": len(unchecked),
        }

    def _judge_newest(self, delivery: Delivery) -> dict[str, Any]:
        entry = self._record.get(delivery)
        own = self._read(entry) if entry is not None and entry.profile else None
        is_same = own is not None and entry is not None and entry.snapshots == self._snapshots
        if own is not None and is_same:
            profile = replace(own, known=self._known)
        else:
            profile = take_profile(self._config, self._files, delivery.span, self._known)
        # If only the snapshots changed, the reference is the accepted profile of the same events.
        reference = own if own is not None and not is_same else self._reference_of(delivery)
        report = self._judge(delivery, profile, reference, is_newest=True, was_accepted=is_same)
        return {**report, "accepted_before": is_same}

    def _judge(
        self,
        delivery: Delivery,
        profile: Profile,
        reference: Profile | None,
        *,
        is_newest: bool = False,
        was_accepted: bool = False,
    ) -> dict[str, Any]:
        """Compare a span with its reference, note the result, and return the span's report."""
        findings = list[Finding]()
        if reference is not None:
            # Only the newest span of a run has a catalogue of its own.
            findings = compare(
                profile, reference, self._drift, self._config.spec, catalogue=is_newest
            )
        exceeded = [str(finding) for finding in findings if finding.is_exceeded]
        is_refused = bool(exceeded) and not was_accepted and self._drift.action == "stop"
        if reference is not None and exceeded:
            self.drifted.append(
                f"span {profile.shown_span} has drifted from span {reference.shown_span}: "
                + "; ".join(exceeded)
            )
        self.is_refused |= is_refused
        # A refused span is no reference; the newest one is none in this run anyway.
        if is_newest or not is_refused:
            self._accepted[delivery] = profile
        return {
            "span": profile.shown_span,
            "version": delivery.version,
            "reference": None if reference is None else reference.shown_span,
            "events": profile.num_events,
            "findings": [finding.to_json() for finding in findings],
        }

    def _reference_of(self, delivery: Delivery) -> Profile | None:
        """Return the profile of the nearest earlier accepted span, or None."""
        # Of several deliveries of a span, prefer the one in the window, then the last accepted.
        of_span: dict[int, Delivery] = {}
        for found in (*self._record, *self._accepted):
            if found.span < delivery.span and of_span.get(found.span) not in self._window:
                of_span[found.span] = found
        for _, found in sorted(of_span.items(), reverse=True):
            if (profile := self._accepted.get(found)) is not None:
                return profile
            entry = self._record.get(found)
            if entry is None:
                continue  # accepted in this run without a profile
            if entry.profile:
                if (profile := self._read(entry)) is not None:
                    return profile
            elif found in self._window:
                self._accepted[found] = profile = self._take(found)
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
                "`--set drift.action=warn --push`"
            )
        log.warning(message)
        return None

    def _take(self, delivery: Delivery) -> Profile:
        """Profile an earlier span of the window, with the catalogue of the last accepted run."""
        profile = take_profile(
            self._config, self._files, delivery.span, self._known, catalogue=False
        )
        if self._last is not None:
            profile.known = self._last.known
            if "candidates" in self._last.statistics:
                profile.statistics["candidates"] = self._last.statistics["candidates"]
        return profile


def compare(
    new: Profile,
    reference: Profile,
    config: DriftConfig,
    spec: FeatureSpec,
    *,
    catalogue: bool = True,
) -> list[Finding]:
    """Measure the differences between a span and an accepted one, where a threshold is set.

    If `catalogue` is false, the candidates and their features are not compared.
    """

    def sides(name: str) -> Sides:
        source: Source = "interactions"
        if name in spec.query_features:
            source = "queries"
        elif name in spec.candidate_features:
            source = "candidates"
        labels = f"span {new.shown_span}", f"span {reference.shown_span}"
        return Sides(new.statistics.get(source), reference.statistics.get(source), *labels)

    names = (*spec.query_features, *spec.candidate_features, RATING_KEY, EVENT_TYPE_KEY)
    now, before = new.num_events, reference.num_events
    ratio = now / before if before else np.nan
    volume = f"their number ({now:,} after {before:,}) as a share"
    least, most, lacking = "drift.min_events", "drift.max_events", "the earlier span has no events"
    found = [
        Finding("events", volume, ratio, config.min_events, least, "at least", lacking),
        Finding("events", volume, ratio, config.max_events, most, "at most", lacking),
        compare_known(
            "candidates",
            "the share of events with {} previously unknown candidates",
            (new.seen, new.seen_counts),
            reference.known,
            config.max_unknown,
            "drift.max_unknown",
            "the span has no events",
        ),
        *([_churn(new.known, reference.known, config.max_churn)] if catalogue else ()),
        # A feature may not yet have been declared when one of the profiles was taken.
        *(
            sides(name).missing(name, config.max_missing, "drift.max_missing")
            for name in names
            if sides(name).both_have(name)
        ),
        *(
            sides(name).distance(name, distance, "drift.distances")
            for name, distance in config.distances.items()
        ),
    ]
    return [
        finding
        for finding in found
        if finding.threshold is not None
        and (catalogue or finding.feature not in spec.candidate_features)
    ]


def _churn(new: Hashes, reference: Hashes, threshold: float | None) -> Finding:
    both = len(np.intersect1d(new, reference, assume_unique=True))
    either = len(new) + len(reference) - both
    added, removed = len(new) - both, len(reference) - both
    measure = f"churn ({added:,} added, {removed:,} removed, {both:,} kept)"
    churn = 1 - both / either if either else np.nan
    setting, lacking = "drift.max_churn", "there are no candidates"
    return Finding("candidates", measure, churn, threshold, setting, lacking=lacking)
