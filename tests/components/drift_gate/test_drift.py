"""Drift between two spans on real files, through the executor."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.artifacts import SpanProfile
from components.drift_gate import gate as drift_gate
from components.drift_gate.accepted_spans import newest_folder
from components.drift_gate.component import DriftGate, DriftGateConfig
from components.drift_gate.config import DistanceConfig, DriftConfig
from components.drift_gate.span_profile import Profile
from components.errors import ComponentError, DriftError, LostProfileError
from components.interactions.config import DataConfig, IngestConfig, SpansConfig
from components.interactions.errors import MissingSpanError
from components.interactions.spans.choice import choose_spans
from tests.builders import artifact, examples_artifact, feature_spec

SPEC = feature_spec(
    query={"club": {"kind": "categorical"}},
    candidate={"price": {"kind": "numeric"}},
    timestamp="time",
    rating="stars",
)
DRIFT = DriftConfig(
    action="stop",
    distances={
        "item": DistanceConfig(l_infinity=0.2),
        "rating": DistanceConfig(jensen_shannon=0.1),
        "club": DistanceConfig(l_infinity=0.2),
        "price": DistanceConfig(jensen_shannon=0.1),
    },
)
WARN = DRIFT.model_copy(update={"action": "warn"})


class Spans:
    """A project with consecutive spans, and the gate on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions: dict[int, int] = {}
        self._num_runs = 0

    def deliver(
        self,
        items: Sequence[str],
        span: int | None = None,
        *,
        stars: float = 3,
        users: Sequence[int] = range(40),
    ) -> None:
        """Deliver the next span, or a span again, with one event per item."""
        span = span or max(self._versions, default=0) + 1
        self._versions[span] = version = self._versions.get(span, 0) + 1
        text = "user,item,time,stars\n"
        for n, item in enumerate(items):
            text += f"u{users[n % len(users)]},{item},{span},{stars + n % 2}\n"
        (self.folder / f"day-{span}-v{version}.csv").write_text(text)

    def gate(
        self,
        items: Sequence[str] | None,
        *,
        reference: str = "",
        known: int = 10,
        price: float = 1.0,
        drift: DriftConfig = DRIFT,
        profiles: str = "",
        redelivered: bool = False,
        clubless: int = 0,
        **options: Any,
    ) -> SpanProfile:
        """Deliver a span if `items` are given, and run the gate on the window.

        With `profiles` the gate runs as on a cluster, where a newer span exists already.
        """
        if items is not None:
            self.deliver(items, **options)
        span = max(self._versions)
        clubs = [f"u{n},{'' if n < clubless else 'red' if n % 2 else 'blue'}" for n in range(40)]
        (self.folder / "users.csv").write_text("\n".join(["user,club", *clubs]))
        catalogue = [f"i{n},{price * (n % 5)}" for n in range(known)]
        (self.folder / f"items-{span}.csv").write_text("\n".join(["item,price", *catalogue]))
        # As one that was not written between two runs.
        for name in ("users.csv", f"items-{span}.csv"):
            os.utime(self.folder / name, ns=(1, 1))
        self._num_runs += 1
        examples = examples_artifact(
            self.folder / f"examples-{self._num_runs}",
            candidates=[{"item": [f"i{n}"]} for n in range(known)],
        )
        examples.set_string_custom_property("last_span", str(span))
        examples.set_string_custom_property("spans", json.dumps(self._versions, sort_keys=True))
        if redelivered:
            text = (self.folder / f"day-{span}-v1.csv").read_text()
            (self.folder / f"day-{span}-v2.csv").write_text(text)
        folder = "" if profiles else f"{self.folder}/"
        ingest = IngestConfig(
            data=DataConfig(
                interactions=folder + "day-{SPAN}-v{VERSION}.csv",
                candidates=folder + "items-{SPAN}.csv",
                queries=folder + "users.csv",
                spans=SpansConfig(window="all"),
            ),
            spec=SPEC,
        )
        newer = self.folder / f"day-{span + 1}-v1.csv"
        if profiles:
            newer.write_text("user,item,time,stars\nu1,i1,1,1")
        config = DriftGateConfig(
            project="clubs",
            ingest=ingest if profiles else choose_spans(ingest),
            drift=drift,
            reference=reference,
            profiles=profiles,
        )
        profile = artifact(SpanProfile, self.folder / f"profile-{self._num_runs}")
        Path(profile.uri).mkdir()
        try:
            DriftGate.test_call(
                examples=examples,
                profile=profile,
                config=config.model_dump_json(),
                data_directory=str(self.folder),
            )
        finally:
            newer.unlink(missing_ok=True)
        return profile


@pytest.fixture
def spans(tmp_path: Path) -> Spans:
    return Spans(tmp_path)


USUAL = [f"i{n % 10}" for n in range(100)]


def report(profile: SpanProfile) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(profile.uri) / "drift_report.json").read_text())
    return found


def test_a_first_span_is_the_reference_of_the_next(spans: Spans) -> None:
    first = spans.gate(USUAL)
    profile = Profile.read(str(Path(first.uri) / "1-v1"))
    assert (profile.shown_span, profile.num_events) == ("1", 100)
    np.testing.assert_array_equal(profile.seen_counts, np.full(10, 10))
    accepted = {"span": "1", "version": 1, "reference": None, "events": 100, "findings": []}
    nothing_before = {"accepted_before": False, "earlier": [], "accepted_unchecked": 0}
    assert report(first) == {**accepted, **nothing_before}
    assert first.get_int_custom_property("span") == 1
    assert first.get_string_custom_property("use") == "clubs"
    again = report(spans.gate(USUAL, reference=first.uri))
    assert again["reference"] == "1"
    values = {(f["feature"], f["setting"].split(".")[1]): f["value"] for f in again["findings"]}
    zeros = [("candidates", "max_unknown"), ("candidates", "max_churn")]
    zeros += [(name, "max_missing") for name in ("club", "price", "rating")]
    zeros += [(name, "distances") for name in ("item", "rating", "club", "price")]
    ones = [("events", "min_events"), ("events", "max_events")]
    assert values == {**dict.fromkeys(zeros, 0), **dict.fromkeys(ones, 1)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"items": USUAL[:40]}, r"events: .* \(40 after 100\) .* is 0\.4, but must be at least"),
        ({"items": []}, r"\(0 after 100\) as a share is 0, but must"),
        ({"items": USUAL * 3}, r"events: .* is 3, but must be at most 2 \(`drift.max_events`\)"),
        # 40 of 100 events are with 4 candidates that the first span's catalogue lacks.
        (
            {"items": [f"i{n % 10 + 4}" for n in range(100)]},
            r"candidates: .* 4 previously unknown candidates is 0\.4, but must be at most",
        ),
        # Ten of thirty stayed.
        ({"known": 30}, r"churn \(20 added, 0 removed, 10 kept\) is 0\.6667, but must"),
        # One item has half of the events instead of a tenth.
        (
            {"items": ["i0"] * 45 + [f"i{n % 10}" for n in range(50)]},
            r"item: L-infinity distance is 0\.42\d*, .* \(`drift.distances.item.l_infinity`\)",
        ),
        ({"stars": 1}, "rating: Jensen-Shannon divergence is 1, but must"),
        # Half of the users were red, now all are.
        ({"users": [1, 3, 5]}, r"club: L-infinity distance is 0\.5, but must"),
        # The values that are left are as they were.
        (
            {"clubless": 36},
            r"club: .* missing values \(90\.0% in span 2, 0\.0% in span 1\) is 0\.9, but must",
        ),
        (
            {"clubless": 40},
            r"club: L-infinity .* cannot be measured: there are no values in span 2",
        ),
        ({"price": 50.0}, "price: Jensen-Shannon divergence is .*, but must"),
    ],
)
def test_a_drifted_span_stops_the_run(spans: Spans, change: dict[str, Any], told: str) -> None:
    first = spans.gate(USUAL)
    with pytest.raises(DriftError, match=told) as caught:
        spans.gate(**{"items": USUAL, **change}, reference=first.uri)
    assert str(caught.value).startswith("span 2 has drifted from span 1: ")
    # TFX removes the files of a component that fails.
    written = json.loads((spans.folder / "profile-2" / "drift_report.json").read_text())
    assert caught.value.report == written


def test_with_warn_the_span_is_accepted_and_reported(spans: Spans) -> None:
    first = spans.gate(USUAL)
    warned = spans.gate(USUAL[:10], reference=first.uri, drift=WARN)
    (events, *_) = report(warned)["findings"]
    assert events["value"] == pytest.approx(0.1)
    assert events["exceeded"] is True
    assert "(10 after 100)" in events["text"]
    # It is the reference of the next span.
    assert report(spans.gate(USUAL[:10], reference=warned.uri))["reference"] == "2"


def test_a_feature_has_one_distance() -> None:
    for given in ({}, {"l_infinity": 0.1, "jensen_shannon": 0.1}):
        with pytest.raises(ValueError, match="give one of"):
            DistanceConfig(**given)


def test_on_a_cluster_good_spans_are_found_as_files(spans: Spans, tmp_path: Path) -> None:
    profiles = str(tmp_path / "profiles")
    assert report(spans.gate(USUAL, profiles=profiles))["reference"] is None
    second = report(spans.gate(USUAL, profiles=profiles))
    assert (second["span"], second["reference"], second["events"]) == ("2", "1", 100)
    with pytest.raises(DriftError, match="span 3 has drifted from span 2: events"):
        spans.gate(USUAL[:10], profiles=profiles)
    # A refused span is never a reference, nor the folder of a killed step.
    (tmp_path / "profiles" / f"3-{10**20}").mkdir()
    with pytest.raises(
        DriftError, match=r"^span 3 has drifted from span 2: events: [^.]*0\.1, but"
    ):
        spans.gate(USUAL, profiles=profiles)
    spans.deliver(USUAL, 3)
    fifth = report(spans.gate(USUAL, profiles=profiles))
    assert (fifth["span"], fifth["reference"]) == ("5", "4")
    assert [(found["span"], found["reference"]) for found in fifth["earlier"]] == [
        ("3", "2"),
        ("4", "3"),
    ]
    # A span without its folder is not a reference.
    shutil.rmtree(newest_folder(profiles))
    assert Path(newest_folder(profiles)).name.startswith("2-")
    assert newest_folder(str(tmp_path / "none")) == ""


def test_spans_between_runs_are_compared_too(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    first = spans.gate(USUAL)
    spans.deliver(USUAL[:10])
    spans.deliver(USUAL)
    with pytest.raises(DriftError, match=r"^span 2 has drifted from span 1: events") as caught:
        spans.gate(USUAL, reference=first.uri)
    # Each against the nearest good one: the third and fourth are as the first was.
    assert "span 3" not in str(caught.value)
    assert [found["reference"] for found in caught.value.report["earlier"]] == ["1", "1"]
    assert caught.value.report["reference"] == "3"
    # Very many are not all read by the gate.
    monkeypatch.setattr(drift_gate, "MOST_COMPARED", 1)
    fourth = report(spans.gate(None, reference=first.uri))
    assert [found["span"] for found in fourth["earlier"]] == ["3"]
    assert (fourth["accepted_unchecked"], fourth["earlier"][0]["reference"]) == (1, "1")


def test_a_new_version_of_a_span_is_compared_and_becomes_the_reference(spans: Spans) -> None:
    first = spans.gate(USUAL)
    second = spans.gate(USUAL, reference=first.uri)
    spans.deliver(USUAL[:10], 2)
    with pytest.raises(DriftError, match=r"^span 2 has drifted from span 1: .* \(10 after"):
        spans.gate(USUAL, reference=second.uri)
    spans.deliver(USUAL + USUAL[:60], 2)
    third = spans.gate(None, reference=second.uri)
    (events, *_) = report(third)["findings"]
    assert "(100 after 160)" in events["text"]
    [again] = report(third)["earlier"]
    assert (again["span"], again["version"], again["reference"]) == ("2", 3, "1")
    assert {finding["feature"] for finding in again["findings"]} >= {"events", "item", "club"}
    # The catalogue is that of the newest span.
    assert not {"price"} & {finding["feature"] for finding in again["findings"]}


def test_a_first_run_takes_only_its_newest_span_as_reference(spans: Spans) -> None:
    for count in (50, 10, 100):
        spans.deliver(USUAL[:count])
    first = spans.gate(USUAL)
    assert (report(first)["reference"], report(first)["accepted_unchecked"]) == (None, 3)
    assert [path.name for path in Path(first.uri).iterdir() if path.is_dir()] == ["4-v1"]
    second = spans.gate(USUAL, reference=first.uri)
    assert (report(second)["reference"], report(second)["earlier"]) == ("4", [])
    # A new version of one of them needs a reference, whose profile is taken now.
    spans.deliver(USUAL, 3)
    third = report(spans.gate(None, reference=second.uri, drift=WARN))
    assert [(found["span"], found["reference"]) for found in third["earlier"]] == [("3", "2")]
    assert third["earlier"][0]["findings"][1]["exceeded"] is True


def test_an_accepted_span_does_not_stop_the_next_run(spans: Spans) -> None:
    first = spans.gate(USUAL)
    warned = spans.gate(USUAL[:10], reference=first.uri, drift=WARN)
    again = report(spans.gate(None, reference=warned.uri))
    assert (again["accepted_before"], again["reference"]) == (True, "1")
    assert again["findings"][0]["exceeded"] is True
    # With another catalogue only the catalogue is judged: the events are accepted already.
    assert report(spans.gate(None, reference=warned.uri, known=11))["reference"] == "2"
    with pytest.raises(DriftError, match=r"^span 2 has drifted from span 2: candidates: churn"):
        spans.gate(None, reference=warned.uri, known=30)
    # A file that is written again is another delivery.
    os.utime(spans.folder / "day-2-v1.csv", ns=(1, 1))
    with pytest.raises(DriftError, match=r"^span 2 has drifted from span 1: events"):
        spans.gate(None, reference=warned.uri)


def test_a_lost_profile_is_an_error(spans: Spans) -> None:
    first = spans.gate(USUAL)
    second = spans.gate(USUAL, reference=first.uri)
    shutil.rmtree(Path(second.uri) / "2-v1")
    assert issubclass(LostProfileError, ComponentError)
    with pytest.raises(
        LostProfileError, match=r"accepted span 2 must be in .*/2-v1, but is gone\. Put"
    ):
        spans.gate(USUAL, reference=second.uri)
    assert report(spans.gate(None, reference=second.uri, drift=WARN))["reference"] == "1"


def test_a_version_other_than_the_ingested_one_is_refused(spans: Spans, tmp_path: Path) -> None:
    with pytest.raises(MissingSpanError, match=r"delivered again .* version 1"):
        spans.gate(USUAL, profiles=str(tmp_path / "profiles"), redelivered=True)
