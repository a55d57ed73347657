import math
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.interactions.buckets import Sizing
from components.interactions.errors import BadRowsError
from models.features.spec import FeatureConfig, FeaturesConfig

FEATURES = FeaturesConfig(
    candidate={
        "brand": FeatureConfig(kind="categorical"),
        "tags": FeatureConfig(kind="categorical", separator="|"),
        "price": FeatureConfig(kind="numeric"),
    }
)


@pytest.fixture
def shop(ingestion: Any) -> Any:
    ingestion.write("events.csv", "q,c,t\nu,a,1\nNULL,b,2\nu, nan,3\nNULL,a,4\nu,b,5\n")
    ingestion.write("items.csv", "c,brand,tags,price\na,\\N,x|NA|y,1\nb,Nan & Co, NA ,2\n")
    return ingestion


@pytest.mark.parametrize("sizing", [Sizing(), Sizing(block_bytes=32, bucket_bytes=32)])
def test_words_for_missing_values_are_named_with_their_setting(shop: Any, sizing: Sizing) -> None:
    found = shop(
        "events.csv", candidates="items.csv", features=FEATURES, sizing=sizing, only_listed=False
    )
    warnings = [text for text in found.report["warnings"] if text.startswith("column")]
    assert [text.partition(" has ")[0] for text in warnings] == [
        "column 'brand' of `candidates.file`",
        "column 'tags' of `candidates.file`",
        "column 'c' of `events.files`",
        "column 'q' of `events.files`",
    ]
    assert "'\\N' (1 times)" in warnings[0]
    assert warnings[0].endswith('`ingest.missing_values: ["\\\\N"]`')
    assert "'NA' (2 times)" in warnings[1]
    assert "'NULL' (2 times)" in warnings[3]
    # Words are values like any other.
    assert found.candidates() == [" nan", "a", "b"]


def test_listed_words_are_missing_values(shop: Any) -> None:
    words = {"missing_values": ("NULL", "nan", "NA", "\\N"), "features": FEATURES}
    with pytest.raises(BadRowsError, match=r"q = 'NULL' \(missing\)"):
        shop("events.csv", candidates="items.csv", **words)
    found = shop("events.csv", candidates="items.csv", bad_rows="reject", **words)
    assert found.report["rejected_rows"] == {"missing": 3}
    assert not any(text.startswith("column") for text in found.report["warnings"])
    a, b = sorted(found.examples("candidates"), key=lambda example: example["c"])
    assert (a["brand"], a["tags"], a["price"]) == ([], ["x", "y"], [1.0])
    assert (b["brand"], b["tags"]) == (["Nan & Co"], [])


def test_a_word_instead_of_a_number_names_the_setting(shop: Any) -> None:
    shop.write("items.csv", "c,brand,tags,price\na,x,x,NA\nb,x,x,2\n")
    options = {"candidates": "items.csv", "features": FEATURES}
    with pytest.raises(BadRowsError, match=r'set `ingest.missing_values: \["NULL", "NA"\]`'):
        shop("events.csv", **options, missing_values=("NULL",))
    shop.write("items.csv", "c,brand,tags,price\na,x,x,NA\nb,x,x,2 €\n")
    priced = {"price": FeatureConfig(kind="numeric", number_format="1234.5 €")}
    with pytest.raises(BadRowsError, match=r'set `ingest.missing_values: \["NA"\]`'):
        shop("events.csv", candidates="items.csv", features=FeaturesConfig(candidate=priced))
    shop.write("items.csv", "c,brand,tags,price\na,x,x,NA\nb,x,x,2\n")
    found = shop("events.csv", **options, missing_values=("NA",))
    prices = {example["c"][0]: example["price"] for example in found.examples("candidates")}
    assert prices["a"] == []


def test_each_column_is_counted_once_and_words_are_advised_as_the_files_write_them(
    shop: Any,
) -> None:
    brand = FeatureConfig(kind="categorical", column="brand")
    found = shop(
        "events.csv",
        candidates="items.csv",
        features=FeaturesConfig(candidate={"brand": brand, "maker": brand}),
        normalize_ids=("case",),
    )
    warnings = {text.split()[1]: text for text in found.report["warnings"] if "words" in text}
    assert "'\\N' (1 times)" in warnings["'brand'"]
    assert '"NULL", "Null", "null"' in warnings["'q'"]


def test_missing_values_are_left_out_of_lists_and_float_columns(ingestion: Any) -> None:
    ingestion.write("events.csv", "q,c,t\nu,a,1\nu,a,2\n")
    table = pa.table({"c": ["a"], "tags": ["['x', 'NULL']"], "price": [math.nan]})
    pq.write_table(table, ingestion.folder / "items.parquet")
    features = FeaturesConfig(
        candidate={
            "tags": FeatureConfig(kind="categorical", separator="|", list_format="python"),
            "price": FeatureConfig(kind="numeric"),
        }
    )
    options = {"candidates": "items.parquet", "features": features}
    with pytest.raises(BadRowsError, match=r'set `ingest.missing_values: \["NULL", "nan"\]`'):
        ingestion("events.csv", **options, missing_values=("NULL",))
    found = ingestion("events.csv", **options, missing_values=("NULL", "nan"))
    (example,) = found.examples("candidates")
    assert (example["tags"], example["price"]) == (["x"], [])


def test_a_setting_that_does_not_help_is_not_advised(ingestion: Any) -> None:
    ingestion.write("events.csv", "q,c,t,r\nu,a,1,NaN\n")
    with pytest.raises(BadRowsError) as raised:
        ingestion("events.csv", rating="r")
    assert "missing_values" not in str(raised.value)
