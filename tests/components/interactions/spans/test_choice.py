"""Spans on real files: which are read, what a gap does, where the newest one is cut off."""

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from components.interactions.config import IngestConfig, SpansConfig, SplitConfig
from components.interactions.errors import MissingSpanError, NoInputError
from components.interactions.sources.files import find_files, fingerprint
from components.interactions.spans.choice import choose_spans
from components.interactions.spans.pattern import list_files

NUMBERED = "s{SPAN}/v{VERSION}/*.csv"
DATED = "{YYYY}-{MM}-{DD}/*.csv"


def deliver(folder: Path, *names: str, rows: str = "a,x,1\n") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"q,c,t\n{rows}")


def config(
    ingestion: Any, pattern: str, split: SplitConfig | None = None, **spans: Any
) -> IngestConfig:
    found: IngestConfig = ingestion.config(pattern, split, spans=SpansConfig(**spans))
    return found


def read(config: IngestConfig) -> list[str]:
    return [file.name for file in find_files(config)]


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ({}, ["s10/v0/a.csv"]),
        ({"window": 2}, ["s10/v0/a.csv", "s9/v2/b.csv"]),
        ({"window": 9}, ["s10/v0/a.csv", "s8/v1/a.csv", "s8/v1/b.csv", "s9/v2/b.csv"]),
        ({"window": "all"}, ["s10/v0/a.csv", "s8/v1/a.csv", "s8/v1/b.csv", "s9/v2/b.csv"]),
        ({"last": 9}, ["s9/v2/b.csv"]),
        ({"last": 9, "window": 2}, ["s8/v1/a.csv", "s8/v1/b.csv", "s9/v2/b.csv"]),
    ],
)
def test_a_window_holds_each_span_once_in_its_highest_version(
    tmp_path: Path, ingestion: Any, spans: dict[str, Any], expected: list[str]
) -> None:
    deliver(tmp_path, "s8/v1/a.csv", "s8/v1/b.csv", "s9/v1/a.csv", "s9/v2/b.csv", "s10/v0/a.csv")
    asked = config(ingestion, NUMBERED, **spans)
    assert read(asked) == expected
    before = fingerprint(asked)
    deliver(tmp_path, "s9/v10/a.csv")  # ten is more than two, although not by name
    assert read(asked) == ["s9/v10/a.csv" if name == "s9/v2/b.csv" else name for name in expected]
    assert (fingerprint(asked) != before) == ("s9/v2/b.csv" in expected)


def test_a_chosen_span_is_the_same_however_it_was_asked_for(tmp_path: Path, ingestion: Any) -> None:
    deliver(tmp_path, "s1/v1/a.csv", "s2/v1/a.csv")
    newest = choose_spans(config(ingestion, NUMBERED))
    assert newest == choose_spans(config(ingestion, NUMBERED, last=2))
    assert choose_spans(newest) is newest
    # What an orchestrator hands to the component is the choice, not the pattern.
    deliver(tmp_path, "s3/v1/a.csv")
    assert read(IngestConfig.model_validate_json(newest.model_dump_json())) == ["s2/v1/a.csv"]


def test_a_gap_in_the_window_stops_or_is_reported(tmp_path: Path, ingestion: Any) -> None:
    deliver(tmp_path, *(f"2026-11-{day}/a.csv" for day in (17, 18, 20)))
    with pytest.raises(MissingSpanError, match=r"span 2026-11-19 of 2026-11-18 to 2026-11-20"):
        choose_spans(config(ingestion, DATED, window=3))
    chosen = choose_spans(config(ingestion, DATED, window=3, missing="warn")).chosen_spans
    assert chosen is not None
    assert [chosen.show(span.span) for span in chosen.interactions] == ["2026-11-18", "2026-11-20"]
    assert [chosen.show(span) for span in chosen.missing] == ["2026-11-19"]
    # Before the first span nothing is missing: there was nothing yet.
    early = choose_spans(config(ingestion, DATED, last="2026-11-18", window=7)).chosen_spans
    assert early is not None
    assert early.missing == ()
    # A late span joins the window.
    deliver(tmp_path, "2026-11-19/a.csv")
    assert len(read(config(ingestion, DATED, window=3))) == 3


@pytest.mark.parametrize("content", ["", "q,c,t\n", "q,c,t\na,,1\n"])
def test_a_span_without_good_events_is_missing(
    tmp_path: Path, ingestion: Any, content: str
) -> None:
    deliver(tmp_path, *(f"s{span}/v1/a.csv" for span in (1, 2, 3)), "s2/v2/a.csv")
    for span in (1, 2, 3):
        ingestion.write(f"s{span}/v1/a.csv", f"q,c,t\na,x,{span}\na,y,{span}\n")
    ingestion.write("s2/v2/a.csv", content)

    def run(**spans: Any) -> Any:
        return ingestion("s{SPAN}/v{VERSION}/*.csv", bad_rows="reject", spans=SpansConfig(**spans))

    with pytest.raises(
        MissingSpanError, match=r"span 2 \(version 2\) is missing: .*no valid event.*missing: warn"
    ):
        run(window=3)
    found = run(window=3, missing="warn")
    assert found.report["spans"] == {
        "missing": ["2"],
        "empty": [{"span": "2", "version": 2}],
        "unread": {},
        "interactions": [{"span": "1", "version": 1}, {"span": "3", "version": 1}],
    }
    # Without the newest span the window is another one.
    for missing in ("stop", "warn"):
        with pytest.raises(MissingSpanError, match=r"span 2 .*, or run as of 1 with"):
            run(window=2, last=2, missing=missing)


def test_a_span_that_was_asked_for_must_be_there(tmp_path: Path, ingestion: Any) -> None:
    deliver(tmp_path, "s1/v1/a.csv", "s3/v1/a.csv")
    for missing in ("stop", "warn"):
        with pytest.raises(MissingSpanError, match="no span 2; there are 2 spans, from 1 to 3"):
            choose_spans(config(ingestion, NUMBERED, last=2, missing=missing))
    with pytest.raises(NoInputError, match="no file matches"):
        choose_spans(config(ingestion, "other-{SPAN}.csv"))


def test_numbers_that_do_not_count_spans_are_refused(tmp_path: Path, ingestion: Any) -> None:
    deliver(tmp_path, "s20261120/v1/a.csv", "s20270101/v1/a.csv", "s1/v1/a.csv")
    with pytest.raises(MissingSpanError, match="must count spans one by one"):
        choose_spans(config(ingestion, NUMBERED, window="all", missing="warn"))
    deliver(tmp_path, "s01/v1/a.csv")
    with pytest.raises(NoInputError, match="span 1 has two spellings"):
        choose_spans(config(ingestion, NUMBERED))


def test_numbers_that_look_like_dates_get_a_hint(tmp_path: Path, ingestion: Any) -> None:
    deliver(tmp_path, "s20261130/v1/a.csv", "s20261201/v1/a.csv")
    hint = r"these numbers look like dates: write \{YYYY\}"
    with pytest.raises(MissingSpanError, match=f"spans 20261131, .* 65 more .* are .*{hint}"):
        choose_spans(config(ingestion, NUMBERED, window=9999))


def test_a_day_far_off_is_named(tmp_path: Path, ingestion: Any) -> None:
    days = ("2026-11-20", "2026-11-21", "2062-11-22")
    deliver(tmp_path, *(f"{day}/a.csv" for day in days))
    with pytest.raises(MissingSpanError) as caught:
        choose_spans(config(ingestion, DATED, window="all", missing="warn"))
    message = str(caught.value)
    assert "13,149 days between 2026-11-20 and 2062-11-22 have no file" in message
    assert "far from the others is " + str(tmp_path / "2062-11-22/a.csv") in message
    assert "YYYY" not in message
    deliver(tmp_path, "2062-11-23/a.csv", "2062-11-24/a.csv")
    with pytest.raises(MissingSpanError, match=r"far from the others is .*2026-11-21/a\.csv"):
        choose_spans(config(ingestion, DATED, window="all", missing="warn"))


def test_near_matches_are_reported(
    tmp_path: Path, ingestion: Any, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(tmp_path, "day-0012/a.csv", "day-13/a.csv", "day-0014b/a.csv", "day-old/a.csv")
    ingestion.write("day-0012/a.csv", "q,c,t\na,x,1\na,y,2\n")
    found = ingestion("day-{SPAN:4}/*.csv")
    near = [str(tmp_path / name) for name in ("day-0014b/a.csv", "day-13/a.csv")]
    assert found.report["spans"]["unread"] == {"interactions": {"files": 2, "first": near}}
    assert f"not read: {', '.join(near)}" in caplog.text
    assert "day-old" not in caplog.text
    deliver(tmp_path, "2026-1-5/a.csv")
    with pytest.raises(NoInputError, match=r"no file matches .*not read: .*2026-1-5/a\.csv"):
        choose_spans(config(ingestion, DATED))


def test_a_snapshot_is_not_newer_than_the_window(tmp_path: Path, ingestion: Any) -> None:
    deliver(tmp_path, *(f"s{span}/v1/e.csv" for span in (3, 4, 5)))
    deliver(tmp_path, "items-2-v1.csv", "items-2-v2.csv", "items-5-v1.csv")
    options = {"candidates": "items-{SPAN}-v{VERSION}.csv"}
    for last, expected in ((4, "items-2-v2.csv"), (5, "items-5-v1.csv")):
        found = ingestion.config(NUMBERED, spans=SpansConfig(last=last), **options)
        assert read(found) == [f"s{last}/v1/e.csv", expected]
    alone = ingestion.config(NUMBERED, **options)
    assert [f.name for f in find_files(alone, ["candidates"])] == ["items-5-v1.csv"]
    (tmp_path / "items-2-v1.csv").unlink()
    (tmp_path / "items-2-v2.csv").unlink()
    with pytest.raises(MissingSpanError, match=r"`candidates.file`: .* the first is 5"):
        find_files(ingestion.config(NUMBERED, spans=SpansConfig(last=4), **options))


def test_the_listing_finds_what_beam_finds(tmp_path: Path) -> None:
    from apache_beam.io.filesystems import FileSystems

    deliver(tmp_path, "a/1.csv", "a/2.txt", "b/1.csv", "b/c/1.csv", "b/[x].csv", "a/.hidden.csv")
    for pattern in ("*/*.csv", "**.csv", "b/?.csv", "[ab]/1.csv", "b/c/1.csv", "none/*.csv"):
        (matched,) = FileSystems.match([str(tmp_path / pattern)])
        expected = sorted(
            entry.path for entry in matched.metadata_list if "hidden" not in entry.path
        )
        listed = [file.path for file in list_files(str(tmp_path / pattern))]
        assert listed == expected, pattern


HELD_OUT = SplitConfig(method="temporal", eval_from="newest_span")
DAY_S = 86_400


def test_the_newest_day_is_held_out_from_its_midnight(tmp_path: Path, ingestion: Any) -> None:
    first = int(datetime(2026, 11, 19, tzinfo=timezone.utc).timestamp())
    deliver(tmp_path, "2026-11-19/a.csv", rows=f"a,x,{first}\nb,y,{first + 5}\n")
    # The second event of the newest file came a day late: it is no later than what is trained on.
    rows = f"a,z,{first + DAY_S}\na,late,{first + 7}\nb,z,{first + DAY_S + 1}\n"
    deliver(tmp_path, "2026-11-20/a.csv", rows=rows)
    found = ingestion.run(config(ingestion, DATED, HELD_OUT, window=2))
    assert found.timelines("train") == {"a": "x late", "b": "y"}
    assert found.timelines("eval") == {"a": "x late z*", "b": "y z*"}
    assert found.report["cut"] == {"eval_from": "2026-11-20T00:00:00+00:00"}
    days = [{"span": f"2026-11-{day}", "version": None} for day in (19, 20)]
    nothing = {"missing": [], "empty": [], "unread": {}}
    assert found.report["spans"] == {**nothing, "interactions": days}


@pytest.mark.parametrize(
    ("ninth", "tenth", "train", "held_out"),
    [
        pytest.param(
            # The last event of span 9 is later than the first of span 10: not for training.
            "a,x,10\nb,y,11\na,early,31\n",
            "b,z,30\na,z,40\n",
            {"a": "x", "b": "y"},
            {"a": "x early* z*", "b": "y z*"},
            id="from where it begins",
        ),
        pytest.param(
            "a,x,10\nb,y,11\nb,future,2000000000\n",
            "b,past,0\nb,z,30\na,z,40\na,w,41\n",
            {"a": "x", "b": "past y"},
            {"a": "x z* w*", "b": "past y z* future*"},
            id="a wrong clock does not move the cut",
        ),
    ],
)
def test_the_newest_number_is_held_out(
    tmp_path: Path, ingestion: Any, ninth: str, tenth: str, train: Any, held_out: Any
) -> None:
    deliver(tmp_path, "s9/v1/a.csv", rows=ninth)
    deliver(tmp_path, "s10/v1/a.csv", rows=tenth)
    found = ingestion.run(config(ingestion, NUMBERED, HELD_OUT, window="all"))
    assert (found.timelines("train"), found.timelines("eval")) == (train, held_out)
    assert found.report["cut"] == {"eval_from": "1970-01-01T00:00:30+00:00"}


def test_settings_that_do_not_fit_are_refused(ingestion: Any) -> None:
    for pattern, split, spans, message in (
        ("events.csv", None, {"window": 2}, "`events.spans` needs a pattern"),
        ("events.csv", HELD_OUT, {}, "newest_span` needs spans"),
        (NUMBERED, HELD_OUT, {}, "holds out the only span"),
        (NUMBERED, None, {"last": "2026-11-20"}, "`events.spans.last`: a span of {SPAN}"),
        (DATED, None, {"last": 5}, "`events.spans.last`: a span must be a date"),
    ):
        with pytest.raises(ValueError, match=message.replace("{", r"\{")):
            config(ingestion, pattern, split, **spans)
    with pytest.raises(ValueError, match="must write spans the same way"):
        ingestion.config(NUMBERED, candidates="items-{YYYY}{MM}{DD}.csv")
    with pytest.raises(ValueError, match="leaves nothing for `test_from`"):
        SplitConfig(eval_from="newest_span", test_from=datetime(2026, 1, 1))
