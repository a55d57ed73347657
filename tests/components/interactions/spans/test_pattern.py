import pytest

from components.interactions.spans.pattern import (
    Delivery,
    find_delivery,
    read_span,
    show_span,
    span_kind,
)

DAY = 20_777  # 2026-11-20, counted from 1970-01-01


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/d/{SPAN}.csv", "/d/12.csv", (12, None)),
        ("/d/{SPAN}.csv", "/d/012.csv", (12, None)),
        ("/d/{SPAN:2}*.csv", "/d/012.csv", (1, None)),
        ("/d/s{SPAN}/v{VERSION}/*.csv", "/d/s3/v10/a b.csv", (3, 10)),
        ("/d/s{SPAN}/v{VERSION}/*.csv", "/d/s3/v10/deep/a.csv", None),
        ("/d/s{SPAN}/**.csv", "/d/s3/v10/deep/a.csv", (3, None)),
        ("/d/{YYYY}-{MM}-{DD}/x.csv", "/d/2026-11-20/x.csv", (DAY, None)),
        ("/d/{YYYY}/{MM}/{YYYY}{MM}{DD}.csv", "/d/2026/11/20261120.csv", (DAY, None)),
        ("/d/{YYYY}/{MM}/{YYYY}{MM}{DD}.csv", "/d/2025/11/20261120.csv", None),
        ("/d.d/{SPAN}.csv", "/dxd/1.csv", None),
        ("/d/[ab]{SPAN}?.csv", "/d/b7x.csv", (7, None)),
        ("/d/[!a]{SPAN}.csv", "/d/a7.csv", None),
        ("/d/{SPAN}.csv", "/d/٣.csv", None),  # a digit, but none that a file name is made of
    ],
)
def test_a_path_belongs_to_a_delivery(
    pattern: str, path: str, expected: tuple[int, int | None] | None
) -> None:
    found = find_delivery(pattern, path)
    assert (None if found is None else (found.span, found.version)) == expected
    # A delivery knows how its number is spelled.
    assert find_delivery("{SPAN}.csv", "07.csv") == Delivery(7, None, ("07",))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{SPAM}.csv", r"unknown placeholder \{SPAM\}"),
        ("{YYYY}-{MM}.csv", "a date needs"),
        ("{VERSION}.csv", "needs a span"),
        ("{YYYY}{MM}{DD}-{SPAN}.csv", "not both"),
        ("{SPAN}{VERSION}.csv", "a number of any length next to another"),
        ("{SPAN:4}{VERSION}.csv", "a number of any length next to another"),
        ("1{SPAN}.csv", "a number of any length next to another"),
        ("{YYYY:2}{MM}{DD}.csv", "have a fixed width"),
    ],
)
def test_a_pattern_that_names_no_span_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        span_kind(pattern)


def test_a_pattern_without_placeholders_has_no_spans() -> None:
    for text in ("/d/events.csv", "/d/*{a,b}.csv"):
        assert span_kind(text) is None


def test_a_date_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"/d/20261131: the date in the name does not exist"):
        find_delivery("/d/{YYYY}{MM}{DD}", "/d/20261131")


def test_spans_are_read_and_shown_as_people_write_them() -> None:
    assert show_span(DAY, "date") == "2026-11-20"
    assert read_span("2026-11-20", "date") == DAY
    assert read_span("17", "number") == read_span(17, "number") == 17
    assert read_span("0010", "number") == 10
    for text, kind in (("17", "date"), ("2026-11-20", "number"), (-1, "number")):
        with pytest.raises(ValueError, match="got"):
            read_span(text, kind)  # type: ignore[arg-type]
