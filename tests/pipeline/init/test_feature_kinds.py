"""The kinds, names and units that `init` finds in the values of columns."""

import datetime

import polars as pl
import pytest

from models.features.spec import RESERVED_KEYS
from pipeline.errors import InitError
from pipeline.init.column_profile import profile
from pipeline.init.feature_kinds import decide_context, decide_kind, safe_feature_name
from pipeline.init.format_detection import find_times

ROWS = 200


def _described(name: str, values: list[object]) -> str:
    feature = decide_kind(profile(pl.Series(name, values, strict=False)))[0]
    if feature is None:
        return "left out"
    options = [feature.separator, feature.path_separator]
    options += [feature.buckets and f"{feature.buckets} buckets"]
    options += [feature.dimension and f"{feature.dimension} numbers"]
    return " ".join([feature.kind, *(option for option in options if option)])


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("price", [f"{7 + i % 90}.5" for i in range(ROWS)], "numeric"),
        ("age", [18 + i % 60 for i in range(ROWS)], "numeric"),
        # Half of the values are up to 10, the highest is 10,000.
        ("views", [str(10 if i % 2 else i * i // 4) for i in range(ROWS)], "numeric 16 buckets"),
        ("level", [str(1 + i % 7) for i in range(ROWS)], "categorical"),
        ("shop_id", [str(100 + i % 40) for i in range(ROWS)], "categorical"),
        ("row", list(range(5000, 5000 + ROWS)), "left out"),
        ("zip_code", [f"{10000 + i % 90 * 7}" for i in range(ROWS)], "left out"),
        ("code", [f"{i:05}" for i in range(ROWS)], "left out"),
        ("gender", ["F" if i % 3 else "M" for i in range(ROWS)], "categorical"),
        ("in_stock", [bool(i % 2) for i in range(ROWS)], "categorical"),
        ("city", [f"City{i % 80}" for i in range(ROWS)], "categorical"),
        ("genres", [["Drama", "Drama|War", "War|Crime"][i % 3] for i in range(ROWS)],
         "categorical |"),
        ("tags", [["a", "b; c", "c;d"][i % 3] for i in range(ROWS)], "categorical ;"),
        ("topics", [["a", "b, c", "c,d"][i % 3] for i in range(ROWS)], "categorical ,"),
        ("labels", [["a"], ["b", "c"]] * 9, "categorical |"),
        ("shelf", [f"S{i % 3} > T{i % 12} > U{i % 24}" for i in range(ROWS)], "path >"),
        ("category", [["Home", "Home/Pans", "Toys/Cars", "Toys/Dolls", "Home/Beds"][i % 5]
                      for i in range(ROWS)], "path /"),
        ("vector", [[i / 7, 1.5, -0.25] for i in range(ROWS)], "vector 3 numbers"),
        ("ragged", [[i / 7] * (1 + i % 2) for i in range(ROWS)], "left out"),
        ("vector_text", [f"[{i}.5, 0.25]" for i in range(ROWS)], "left out"),
        ("title", [f"The {i}th Night, Part {i}" for i in range(ROWS)], "text"),
        ("url", [f"https://example.org/{i}" for i in range(ROWS)], "left out"),
        ("image", [f"img/{i}.jpg" for i in range(ROWS)], "left out"),
        ("token", [f"x{i}" for i in range(ROWS)], "left out"),
        ("constant", ["same"] * ROWS, "left out"),
        ("empty", [None, ""] * 5, "left out"),
        ("added", [datetime.date(2024, 1, 1 + i % 28) for i in range(ROWS)], "left out"),
        ("added_text", [f"2024-01-{1 + i % 28:02}" for i in range(ROWS)], "left out"),
        ("mostly", ["NA" if i % 20 == 0 else f"{i}.5" for i in range(ROWS)], "left out"),
    ],
)  # fmt: skip
def test_tells_the_kind_of_a_column(name: str, values: list[object], expected: str) -> None:
    assert _described(name, values) == expected


@pytest.mark.parametrize(
    ("name", "values", "is_context"),
    [
        ("device", [["phone", "desktop"][i % 7 % 2] for i in range(ROWS)], True),
        # Requests do not have it.
        ("quantity", [1 + i % 7 % 2 for i in range(ROWS)], False),
        # All events of a candidate have the same value.
        ("country", [["DE", "FR"][i % 10 % 2] for i in range(ROWS)], False),
        ("device_id", [f"d{i}" for i in range(ROWS)], False),
    ],
)
def test_context_is_what_requests_have(name: str, values: list[object], is_context: bool) -> None:
    candidates = pl.Series("item", [i % 10 for i in range(ROWS)])
    assert (decide_context(pl.Series(name, values), candidates)[0] is not None) == is_context


@pytest.mark.parametrize(
    ("column", "taken", "expected"),
    [
        ("age", set(), "age"),
        ("unit price (€)", set(), "unit_price"),
        ("2nd", set(), "candidate_2nd"),
        ("名前", set(), "feature"),
        ("rating", set(), "candidate_rating"),
        ("country", {"country"}, "candidate_country"),
        ("country", {"country", "candidate_country"}, "candidate_country_2"),
    ],
)
def test_makes_safe_names(column: str, taken: set[str], expected: str) -> None:
    name = safe_feature_name(column, "candidate", taken)
    assert name == expected
    assert name.isidentifier()
    assert name not in RESERVED_KEYS | taken


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([881250949], "s"),
        ([1714521600000], "ms"),
        ([1714521600000000], "us"),
        ([1714521600000000000], "ns"),
        (["881250949", ""], "s"),
        (["1714521600.5"], "s"),
        (["2024-05-01T12:00:00Z", "2024-05-01"], "iso8601"),
        ([datetime.datetime(2024, 5, 1)], "iso8601"),
    ],
)
def test_reads_the_unit_off_the_values(values: list[object], unit: str) -> None:
    assert find_times(pl.Series("t", values)).unit == unit
    with pytest.raises(InitError, match=r"t must hold epochs.*'03/12/20'"):
        find_times(pl.Series("t", ["03/12/20"]))
