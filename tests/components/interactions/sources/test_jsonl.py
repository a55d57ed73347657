import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.interactions.errors import ColumnError, UnreadableFileError
from components.interactions.rows.checks import read_rows
from components.interactions.sources import jsonl
from components.interactions.sources.files import find_files
from components.interactions.sources.sample import read_sample
from models.features.spec import FeatureConfig, FeaturesConfig

FEATURES = FeaturesConfig(
    candidate={
        "price": FeatureConfig(kind="numeric"),
        "tags": FeatureConfig(kind="categorical", separator="|"),
    }
)


def write(ingestion: Any, *lines: Any) -> Any:
    """Write a catalogue, and return the configuration of ingestion."""
    ingestion.write("events.csv", "q,c,t\nu,a,1\n")
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    ingestion.write("items.jsonl", "\n".join(texts) + "\n")
    return ingestion.config("events.csv", candidates="items.jsonl", features=FEATURES)


def read(config: Any, block_bytes: int = 1 << 20) -> tuple[list[Any], dict[int, str]]:
    """Return ID, price and tags of the good rows, and the reasons of the bad rows by line."""
    (file,) = find_files(config, ["candidates"])
    rows, bad = [], {}
    for good, faulty in read_rows(config, file, block_bytes):
        rows += list(zip(*(good[key].to_pylist() for key in ("c", "price", "tags")), strict=True))
        bad.update(zip(faulty["#line"].to_pylist(), faulty["reason"].to_pylist(), strict=True))
    return rows, bad


@pytest.mark.parametrize("block_bytes", [20, 1 << 20])
def test_values_of_several_types_and_bad_lines(ingestion: Any, block_bytes: int):
    config = write(
        ingestion,
        {"c": 1, "price": 2, "tags": ["x", "y"], "other": {"n": 1}},
        "",
        {"c": "2024-05-01T00:00:00", "price": "2.5", "tags": "x|z"},
        '{"c": "broken"',
        {"c": 10**20, "price": None, "tags": []},
        {"c": {"id": 1}, "price": 1, "tags": None},
        "[1]",
        '{"c": "nan", "price": NaN}',
        {"c": "list", "price": 1.5, "tags": [["x"]]},
        {"c": "\ud800", "price": 1},
    )
    rows, bad = read(config, block_bytes)
    assert rows == [
        ("1", 2.0, "x|y"),
        ("2024-05-01T00:00:00", 2.5, "x|z"),
        ("100000000000000000000", None, ""),
    ]
    assert bad == {
        4: "not a JSON object",
        6: "an object instead of a value or a list",
        7: "not a JSON object",
        8: "not a finite number",
        9: "a nested list instead of a value or a list",
        10: "not UTF-8",
    }


def test_nested_columns_are_named(ingestion: Any):
    config = write(ingestion, {"c": "a", "price": {"eur": 1}, "tags": "x"})
    with pytest.raises(ColumnError, match=r"column 'price' is struct<.*> *, which cannot be read"):
        read(config)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.text(min_size=1, max_size=5).filter(lambda t: t.isprintable()),
            st.none() | st.integers(-1000, 1000) | st.sampled_from(["7", "1.5"]),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_the_sample_has_the_values_of_ingestion(ingestion: Any, rows: list[tuple[str, Any]]):
    config = write(ingestion, *({"c": c, "price": price, "tags": "x"} for c, price in rows))
    expected = [(c, None if price is None else float(price), "x") for c, price in rows]
    assert read(config) == (expected, {})
    table = read_sample(str(Path(ingestion.folder) / "items.jsonl"), max_rows=99).table
    found = [None if price is None else float(price) for price in table["price"]]
    assert list(zip(table["c"], found, table["tags"], strict=True)) == expected


def test_a_line_without_an_end_is_named(ingestion: Any, monkeypatch: pytest.MonkeyPatch):
    config = write(ingestion, {"c": "a", "tags": ["x"], "price": 1}, json.dumps({"c": "y" * 100}))
    monkeypatch.setattr(jsonl, "_LONGEST_LINE", 50)
    with pytest.raises(UnreadableFileError, match="after line 1: no line ends within"):
        read(config, block_bytes=60)
    ingestion.write("long.jsonl", json.dumps({"c": "y" * (1 << 20)}))
    with pytest.raises(UnreadableFileError, match="its first line is longer than 1 MB"):
        find_files(ingestion.config("long.jsonl"))
