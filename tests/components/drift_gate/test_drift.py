"""Drift between two spans on real files, through the executor."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfx.types import standard_artifacts

from components.drift_gate.comparison import Finding
from components.drift_gate.config import DistanceConfig, DriftConfig
from components.drift_gate.executor import DriftError, Executor
from components.drift_gate.kept_profiles import find_profile
from components.drift_gate.span_profile import Profile
from components.drift_gate.spec import (
    CONFIG_KEY,
    DATA_DIRECTORY_KEY,
    DriftGateConfig,
    SpanProfile,
)
from components.timeline_example_gen.config import DataConfig, IngestConfig, SpansConfig
from components.timeline_example_gen.errors import MissingSpanError
from components.timeline_example_gen.spans import choose_spans
from models.features import ColumnsConfig, FeatureConfig, FeaturesConfig, FeatureSpec
from tests.conftest import WriteExamples

SPEC = FeatureSpec(
    columns=ColumnsConfig(query_id="user", candidate_id="item", timestamp="time", rating="stars"),
    features=FeaturesConfig(
        query={"club": FeatureConfig(kind="categorical")},
        candidate={"price": FeatureConfig(kind="numeric")},
    ),
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


class Spans:
    """A use with a span after the other, and the gate on each."""

    def __init__(self, folder: Path, write_examples: WriteExamples) -> None:
        self.folder = folder
        self._write_examples = write_examples
        self._number = 0

    def gate(
        self,
        items: list[str],
        *,
        stars: float = 3,
        baseline: str = "",
        known: int = 10,
        users: Sequence[int] = range(40),
        price: float = 1.0,
        drift: DriftConfig = DRIFT,
        profiles: str = "",
        redelivered: bool = False,
        clubless: int = 0,
    ) -> SpanProfile:
        """Delivers a span with one event an item, and holds it against the baseline.

        With a folder of profiles as on a cluster, where a newer span has come already.
        """
        self._number += 1
        span = self._number
        rows = [
            f"u{users[n % len(users)]},{item},{span},{stars + n % 2}"
            for n, item in enumerate(items)
        ]
        text = "\n".join(["user,item,time,stars", *rows])
        (self.folder / f"day-{span}-v1.csv").write_text(text)
        if redelivered:
            (self.folder / f"day-{span}-v2.csv").write_text(text)
        clubs = [f"u{n},{'' if n < clubless else 'red' if n % 2 else 'blue'}" for n in range(40)]
        (self.folder / "users.csv").write_text("\n".join(["user,club", *clubs]))
        catalogue = [f"i{n},{price * (n % 5)}" for n in range(known)]
        (self.folder / f"items-{span}.csv").write_text("\n".join(["item,price", *catalogue]))
        examples = standard_artifacts.Examples()
        examples.uri = str(self.folder / f"examples-{span}")
        examples.split_names = '["candidates"]'
        examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
        self._write_examples(
            Path(examples.uri) / "Split-candidates", [{"item": [f"i{n}"]} for n in range(known)]
        )
        examples.set_string_custom_property("last_span", str(span))
        examples.set_string_custom_property("spans", json.dumps({str(span): 1}))
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
        if profiles:
            (self.folder / f"day-{span + 1}-v1.csv").write_text("user,item,time,stars\nu1,i1,1,1")
        config = DriftGateConfig(
            use="clubs",
            ingest=ingest if profiles else choose_spans(ingest),
            drift=drift,
            baseline=baseline,
            profiles=profiles,
            code_hash="",
        )
        profile = SpanProfile()
        profile.uri = str(self.folder / f"profile-{span}")
        Path(profile.uri).mkdir()
        Executor().Do(
            {"examples": [examples]},
            {"profile": [profile]},
            {CONFIG_KEY: config.model_dump_json(), DATA_DIRECTORY_KEY: str(self.folder)},
        )
        return profile


@pytest.fixture
def spans(tmp_path: Path, write_examples: WriteExamples) -> Spans:
    return Spans(tmp_path, write_examples)


USUAL = [f"i{n % 10}" for n in range(100)]


def report(profile: SpanProfile) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(profile.uri) / "drift_report.json").read_text())
    return found


def test_a_first_span_is_the_measure_of_the_next(spans: Spans) -> None:
    first = spans.gate(USUAL)
    assert report(first) == {"span": "1", "baseline": None, "events": 100, "findings": []}
    assert first.get_int_custom_property("span") == 1
    assert first.get_string_custom_property("use") == "clubs"
    again = report(spans.gate(USUAL, baseline=first.uri))
    assert again["baseline"] == "1"
    values = {(f["feature"], f["setting"].split(".")[1]): f["value"] for f in again["findings"]}
    assert values == {
        ("events", "min_events"): 1,
        ("events", "max_events"): 1,
        ("candidates", "max_unknown"): 0,
        ("candidates", "max_churn"): 0,
        ("club", "max_missing"): 0,
        ("price", "max_missing"): 0,
        ("rating", "max_missing"): 0,
        ("item", "distances"): 0,
        ("rating", "distances"): 0,
        ("club", "distances"): 0,
        ("price", "distances"): 0,
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"items": USUAL[:40]}, r"events: number \(40 after 100\) .* 0\.4 is not at least .* 0\.5"),
        ({"items": USUAL * 3}, r"events: number .* 3 is not at most `drift.max_events` 2"),
        # 40 of 100 events are with 4 candidates that the first span's catalogue lacks.
        (
            {"items": [f"i{n % 10 + 4}" for n in range(100)]},
            r"candidates: share of events with one of 4 unknown before 0\.4 is not at most",
        ),
        # Ten of thirty stayed.
        ({"known": 30}, r"churn \(20 came, 0 went, 10 stayed\) 0\.6667 is not at most"),
        # One item has half of the events instead of a tenth.
        (
            {"items": ["i0"] * 45 + [f"i{n % 10}" for n in range(50)]},
            r"item: L-infinity distance 0\.42\d* is not at most `drift.distances.item.l_infinity`",
        ),
        ({"stars": 1}, "rating: Jensen-Shannon divergence 1 is not at most"),
        # Half of the users were red, now all are.
        ({"users": [1, 3, 5]}, r"club: L-infinity distance 0\.5 is not at most"),
        # The values that are left are as they were.
        (
            {"clubless": 36},
            r"club: missing in 90\.0% after 0\.0%; difference 0\.9 is not at most "
            r"`drift.max_missing` 0\.2",
        ),
        (
            {"clubless": 40},
            r"club: L-infinity distance cannot be told: span 2 has no values; "
            r"`drift.distances.club.l_infinity` 0\.2",
        ),
        ({"price": 50.0}, "price: Jensen-Shannon divergence .* is not at most"),
    ],
)
def test_what_has_moved_too_far_stops_with_its_figures(
    spans: Spans, change: dict[str, Any], told: str
) -> None:
    first = spans.gate(USUAL)
    with pytest.raises(DriftError, match=told) as caught:
        spans.gate(**{"items": USUAL, **change}, baseline=first.uri)
    assert str(caught.value).startswith("span 2 has drifted from 1: ")
    # TFX removes the files of a component that fails.
    written = json.loads((spans.folder / "profile-2" / "drift_report.json").read_text())
    assert caught.value.report == written


def test_under_warn_the_span_is_let_pass_and_reported(spans: Spans) -> None:
    first = spans.gate(USUAL)
    warned = spans.gate(
        USUAL[:10], baseline=first.uri, drift=DRIFT.model_copy(update={"action": "warn"})
    )
    (events, *_) = report(warned)["findings"]
    assert events["value"] == pytest.approx(0.1)
    assert events["exceeded"] is True
    assert "number (10 after 100)" in events["text"]
    # And it is the measure of the next one.
    assert report(spans.gate(USUAL[:10], baseline=warned.uri))["baseline"] == "2"


def test_a_span_without_events_is_too_few(spans: Spans) -> None:
    first = spans.gate(USUAL)
    with pytest.raises(DriftError, match=r"number \(0 after 100\) as a share 0 is not at least"):
        spans.gate([], baseline=first.uri)


def test_what_cannot_be_measured_fails_closed() -> None:
    assert Finding("x", "distance", math.nan, "at most", 1.0, "drift.x").is_exceeded


def test_a_profile_is_read_as_it_was_written(spans: Spans) -> None:
    profile = Profile.read(spans.gate(USUAL).uri)
    assert (profile.span, profile.shown_span, profile.num_events) == (1, "1", 100)
    assert len(profile.known) == len(profile.seen) == 10
    np.testing.assert_array_equal(profile.seen_counts, np.full(10, 10))
    assert set(profile.statistics) == {"interactions", "queries", "candidates"}


def test_one_measure_a_feature() -> None:
    for given in ({}, {"l_infinity": 0.1, "jensen_shannon": 0.1}):
        with pytest.raises(ValueError, match="give one of"):
            DistanceConfig(**given)


def test_on_a_cluster_good_spans_are_found_as_files(spans: Spans, tmp_path: Path) -> None:
    profiles = str(tmp_path / "profiles")
    assert report(spans.gate(USUAL, profiles=profiles))["baseline"] is None
    second = report(spans.gate(USUAL, profiles=profiles))
    assert (second["span"], second["baseline"], second["events"]) == ("2", "1", 100)
    with pytest.raises(DriftError, match="span 3 has drifted from 2: events"):
        spans.gate(USUAL[:10], profiles=profiles)
    # What was stopped is never a measure, nor what a killed step left.
    (tmp_path / "profiles" / "3-99").mkdir()
    assert report(spans.gate(USUAL, profiles=profiles))["baseline"] == "2"
    # A span that is run again is held against one before it.
    assert Profile.read(find_profile(profiles, 2)).span == 1
    assert find_profile(profiles, 1) == find_profile(str(tmp_path / "none"), 9) == ""


def test_another_version_than_was_ingested_is_refused(spans: Spans, tmp_path: Path) -> None:
    with pytest.raises(MissingSpanError, match=r"delivered again while .* read in version 1"):
        spans.gate(USUAL, profiles=str(tmp_path / "profiles"), redelivered=True)
