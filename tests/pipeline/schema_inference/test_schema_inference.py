import datetime
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components.interactions.config import DataConfig, IngestConfig, SplitConfig
from components.interactions.errors import NoInputError
from pipeline.schema_inference.inferred_schema import infer_schema, schema_text
from pipeline.schema_inference.observation import FeatureTally, Observation, observe
from pipeline.schema_inference.schema_differences import Difference, find_differences
from tests.builders import feature_spec

USERS, ITEMS = 20, 12


@pytest.fixture
def config(tmp_path: Path) -> IngestConfig:
    """20 users rate 12 items from 1 to 4; a user's country is DE or FR; one item has no price."""
    start = datetime.datetime(2024, 5, 1)
    events = [
        (f"u{u}", f"i{(u + n) % ITEMS}", 1 + n, start + datetime.timedelta(seconds=u * 60 + n))
        for u in range(USERS)
        for n in range(4)
    ]
    pl.DataFrame(events, ["user", "item", "stars", "time"], orient="row").write_parquet(
        tmp_path / "events.parquet"
    )
    _write_users(tmp_path, ["DE", "FR"] * (USERS // 2))
    pl.DataFrame(
        {
            "item": [f"i{i}" for i in range(ITEMS)],
            "name": [f"Item number {i}" for i in range(ITEMS)],
            "tags": ["a|b", "b", "a|c|"] * (ITEMS // 3),
            "price": [None, *[0.5 * i for i in range(1, ITEMS)]],
        }
    ).write_csv(tmp_path / "items.csv")
    return IngestConfig(
        data=DataConfig(
            interactions=str(tmp_path / "events.parquet"),
            queries=str(tmp_path / "users.csv"),
            candidates=str(tmp_path / "items.csv"),
        ),
        split=SplitConfig(method="random"),
        spec=feature_spec(
            {"country": {"kind": "categorical"}},
            {
                "title": {"kind": "text", "column": "name"},
                "tags": {"kind": "categorical", "separator": "|"},
                "price": {"kind": "numeric"},
            },
            timestamp="time",
            rating="stars",
        ),
    )


def _write_users(folder: Path, countries: list[str | None]) -> None:
    users = [f"u{u}" for u in range(len(countries))]
    pl.DataFrame({"user": users, "country": countries}).write_csv(folder / "users.csv")


def _features(schema: schema_pb2.Schema) -> Mapping[str, schema_pb2.Feature]:
    return {feature.name: feature for feature in schema.feature}


def _only(differences: list[Difference]) -> Difference:
    (difference,) = differences
    return difference


def test_events_may_lack_labels(config: IngestConfig, tmp_path: Path):
    events = pl.read_parquet(tmp_path / "events.parquet")
    seconds = pl.when(pl.col("stars") > 1).then(5.0)
    events.with_columns(seconds=seconds, ms=5000).write_parquet(tmp_path / "events.parquet")
    columns = config.spec.columns.model_copy(update={"labels": ("ms", "seconds")})
    spec = config.spec.model_copy(update={"columns": columns})
    features = _features(infer_schema(observe(config.model_copy(update={"spec": spec}))))
    assert features["ms"].float_domain.disallow_nan
    assert not features["seconds"].float_domain.disallow_nan
    assert features["seconds"].not_in_environment == ["CATALOGUE"]


def test_observes_what_examples_would_hold(config: IngestConfig) -> None:
    observed = observe(config)
    features = observed.features
    assert list(features) == [
        "user", "country", "item", "timestamp", "rating", "is_target", "title", "tags", "price",
    ]  # fmt: skip
    assert features["country"].values == {"DE": 10, "FR": 10}
    # The empty string behind the last separator is no value.
    assert features["tags"].values == {"a": 8, "b": 8, "c": 4}
    assert features["title"].values is None
    assert (features["price"].num_rows, features["price"].num_missing) == (12, 1)
    assert (features["price"].minimum, features["price"].maximum) == (0.5, 5.5)
    assert (features["rating"].minimum, features["rating"].maximum) == (1, 4)
    assert features["timestamp"].minimum == 1714521600
    assert features["user"].num_rows == USERS
    assert observed.is_complete
    assert {s: j.unmatched_ids for s, j in observed.joins.items()} == {
        "queries": 0,
        "candidates": 0,
    }


def test_infers_types_values_presence_domains_and_environments(config: IngestConfig) -> None:
    schema = infer_schema(observe(config))
    features = _features(schema)
    assert list(schema.default_environment) == ["TIMELINES", "CATALOGUE"]
    types = {name: schema_pb2.FeatureType.Name(f.type) for name, f in features.items()}
    assert types == {
        "user": "BYTES", "country": "BYTES", "item": "BYTES", "timestamp": "INT",
        "rating": "FLOAT", "is_target": "INT", "title": "BYTES", "tags": "BYTES",
        "price": "FLOAT",
    }  # fmt: skip
    values = {name: (f.value_count.min, f.value_count.max) for name, f in features.items()}
    assert values["country"] == values["title"] == values["user"] == (1, 1)
    assert values["item"] == values["rating"] == values["tags"] == (1, 0)
    assert values["price"] == (0, 1)
    assert features["country"].presence.min_fraction == 1.0
    assert features["price"].presence.min_fraction == 0.0
    assert list(features["country"].string_domain.value) == ["DE", "FR"]
    assert not features["tags"].HasField("string_domain")
    assert (features["rating"].float_domain.min, features["rating"].float_domain.max) == (1, 4)
    assert not features["price"].float_domain.HasField("max")
    assert not any(feature.HasField("shape") for feature in features.values())
    assert not features["item"].not_in_environment
    assert features["country"].not_in_environment == ["CATALOGUE"]
    assert features["title"].not_in_environment == ["TIMELINES"]


def test_a_column_of_many_values_gets_no_domain(config: IngestConfig, tmp_path: Path) -> None:
    # Each value once: the next user would bring a new one.
    _write_users(tmp_path, [f"city{u}" for u in range(USERS)])
    assert not _features(infer_schema(observe(config)))["country"].HasField("string_domain")


def test_a_part_of_the_rows_closes_no_domain(config: IngestConfig) -> None:
    observed = observe(config, max_rows=20)
    read = {source: (read.num_rows, read.is_complete) for source, read in observed.sources.items()}
    assert read == {
        "interactions": (20, False),
        "queries": (USERS, True),
        "candidates": (ITEMS, True),
    }
    assert not observed.is_complete
    schema = infer_schema(observed)
    assert not _features(schema)["country"].HasField("string_domain")
    assert "the first 20 rows of interactions" in schema_text(schema, observed, "shop")


def test_the_text_parses_back(config: IngestConfig, tmp_path: Path) -> None:
    _write_users(tmp_path, ['"D|E"', "Ö"] * (USERS // 2))
    observed = observe(config)
    schema = infer_schema(observed)
    text = schema_text(schema, observed, "shop")
    assert text_format.Parse(text, schema_pb2.Schema()) == schema
    assert "Ö" in text


def test_what_is_inferred_has_no_difference(config: IngestConfig) -> None:
    observed = observe(config)
    assert find_differences(infer_schema(observed), observed) == []


def test_a_wider_schema_is_no_difference(config: IngestConfig) -> None:
    observed = observe(config)
    schema = infer_schema(observed)
    _features(schema)["country"].string_domain.value.append("ES")
    _features(schema)["rating"].float_domain.max = 5
    _features(schema)["country"].value_count.min = 0
    assert find_differences(schema, observed) == []


@pytest.mark.parametrize(
    ("countries", "says", "edit"),
    [
        (
            [*["DE", "FR"] * 8, "ES", "ES", "ES", "IT"],
            "2 new: 'ES' 3×, 'IT' 1×",
            'string_domain { value: "ES" value: "IT" }',
        ),
        # u1 has no country, and the last two users have no row.
        (["DE", None, *["FR", "DE"] * 8], "3 of 20 rows have none (15.00%)", "min: 0"),
        ([None] * USERS, "no value in 20 rows", ""),
    ],
)
def test_finds_new_and_missing_values(
    config: IngestConfig, tmp_path: Path, countries: list[str | None], says: str, edit: str
) -> None:
    schema = infer_schema(observe(config))
    _write_users(tmp_path, countries)
    observed = observe(config)
    assert observed.joins["queries"].unmatched_ids == USERS - len(countries)
    difference = _only(find_differences(schema, observed))
    assert (difference.feature, difference.data_says) == ("country", says)
    assert edit in difference.edit
    # A query without events does not count.
    _write_users(tmp_path, [*["DE", "FR"] * (USERS // 2), "XX"])
    assert find_differences(schema, observe(config)) == []


def test_tolerates_the_share_of_new_values_that_the_schema_does(
    config: IngestConfig, tmp_path: Path
) -> None:
    schema = infer_schema(observe(config))
    _features(schema)["country"].distribution_constraints.min_domain_mass = 0.9
    _write_users(tmp_path, ["DE", "FR"] * 9 + ["ES", "DE"])
    assert find_differences(schema, observe(config)) == []
    _write_users(tmp_path, ["DE", "FR"] * 8 + ["ES", "ES", "ES", "DE"])
    assert _only(find_differences(schema, observe(config))).data_says == "1 new: 'ES' 3×"


def test_finds_ratings_out_of_range(config: IngestConfig) -> None:
    observed = observe(config)
    schema = infer_schema(observed)
    _features(schema)["rating"].float_domain.min = 2
    _features(schema)["rating"].float_domain.max = 3
    low, high = find_differences(schema, observed)
    assert (low.schema_says, low.data_says) == ("at least 2", "down to 1")
    assert (high.data_says, high.edit) == ("up to 4", "float_domain { max: 4 }")


def test_finds_features_that_only_one_side_knows(config: IngestConfig) -> None:
    observed = observe(config)
    schema = infer_schema(observed)
    _features(schema)["title"].name = "heading"
    gone, new = find_differences(schema, observed)
    assert (gone.feature, gone.data_says) == ("heading", "no Example of this configuration has it")
    assert new.edit.startswith('add feature { name: "title"')
    # The edit is text to paste.
    pasted = new.edit.removeprefix("add ")
    assert text_format.Parse(pasted, schema_pb2.Schema()).feature[0].name == "title"


@pytest.mark.parametrize(
    ("feature", "change", "edit"),
    [
        ("price", "type: INT", "type: FLOAT"),
        ("price", "shape { dim { size: 1 } }", "remove `shape`, keep `value_count`"),
        ("tags", "value_count { max: 1 }", "remove value_count.max"),
        ("item", 'not_in_environment: "CATALOGUE"', 'remove not_in_environment: "CATALOGUE"'),
    ],
)
def test_finds_what_the_schema_says_wrongly(
    config: IngestConfig, feature: str, change: str, edit: str
) -> None:
    observed = observe(config)
    schema = infer_schema(observed)
    _features(schema)[feature].MergeFrom(text_format.Parse(change, schema_pb2.Feature()))
    difference = _only(find_differences(schema, observed))
    assert (difference.feature, difference.edit) == (feature, edit)


def test_finds_an_environment_that_the_schema_lacks(config: IngestConfig) -> None:
    observed = observe(config)
    schema = infer_schema(observed)
    del _features(schema)["price"].not_in_environment[:]
    assert _only(find_differences(schema, observed)).edit == 'not_in_environment: "TIMELINES"'
    schema = infer_schema(observed)
    schema.default_environment.remove("CATALOGUE")
    difference = _only(find_differences(schema, observed))
    assert (difference.feature, difference.edit) == ("", 'add default_environment: "CATALOGUE"')


def test_finds_rows_that_cannot_be_read(config: IngestConfig, tmp_path: Path) -> None:
    schema = infer_schema(observe(config))
    with (tmp_path / "items.csv").open("a") as file:
        file.write("i98,Bad,a,cheap\ni99,Bad,a,free\n")
    difference = _only(find_differences(schema, observe(config)))
    assert difference.feature == "price"
    assert difference.data_says.startswith("2 rows of candidates: ")
    assert "'cheap'" in difference.data_says


def test_a_domain_by_name_is_followed() -> None:
    schema = schema_pb2.Schema(default_environment=["TIMELINES", "CATALOGUE"])
    schema.string_domain.add(name="countries", value=["DE"])
    schema.feature.add(
        name="country", type="BYTES", domain="countries", not_in_environment=["CATALOGUE"]
    )
    tally = FeatureTally("country", "query", "BYTES", False, Counter({"DE": 3, "FR": 1}), 4)
    difference = _only(find_differences(schema, Observation({"country": tally})))
    assert difference.data_says == "1 new: 'FR' 1×"


def test_without_a_valid_event_there_is_no_join(config: IngestConfig, tmp_path: Path) -> None:
    table = pl.read_parquet(tmp_path / "events.parquet")
    bad = table.with_columns(user=pl.lit(""))
    bad.write_parquet(tmp_path / "events.parquet")
    observed = observe(config)
    assert observed.bad_rows["interactions", "user", "missing"] == len(table)
    table.clear().write_parquet(tmp_path / "events.parquet")
    with pytest.raises(NoInputError, match="not a single row"):
        observe(config)
