"""A real run of Transform, and generated timelines with a structure that training must find."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from models.config import ModelConfig, TrainingConfig
from models.features.preprocessing import QUERY_VOCABULARY_KEY, SPEC_KEY, preprocessing_fn
from models.features.spec import FeatureSpec
from models.features.vocabularies import FeatureSizes, candidate_counts
from models.input.transformed_features import read_candidate_features
from models.towers.export import export_towers
from models.training.two_tower_model import TwoTowerModel
from tests.builders import feature_spec

if TYPE_CHECKING:
    from tests.models.fitting import Fitting

Row = dict[str, list[Any]]

RAW_SPEC = feature_spec(
    query={
        "age": {"kind": "numeric"},
        "visits": {"kind": "numeric", "buckets": 2},
        "country": {"kind": "categorical", "max_vocabulary": 2},
    },
    candidate={
        "title": {"kind": "text"},
        "genres": {"kind": "categorical", "separator": "|", "min_count": 2},
        "year": {"kind": "numeric"},
        "section": {"kind": "path", "path_separator": ">"},
        "cover": {"kind": "vector", "dimension": 3},
    },
    context={"device": {"kind": "categorical"}},
    timestamp="t",
    rating="rating",
    event_type="did",
    event_types=("view", "buy"),
)


def timeline(user: str, items: list[str], **features: list[Any]) -> Row:
    events = {
        "timestamp": list(range(len(items))),
        "is_target": [0] * len(items),
        "rating": [4.0] * len(items),
        "device": [("web", "", "app")[number % 3] for number in range(len(items))],
        "event_type": [("view", "buy", "other")[number % 3] for number in range(len(items))],
    }
    return {"user": [user], "item": items, **events, **features}


# A category that a file of lines cannot hold as it is.
LINE_ENDS = "x\r\ny\\n\u2028\0 "

# Events and the catalogue together give every candidate a count of its own: a b 5, ü→漢 4, a 3,
# c 2, d 1.
TIMELINES = [
    timeline("u 1", ["a b", "ü→漢", "a b", "c"], age=[-1.8e19], visits=[1.0], country=["CH"]),
    timeline("u2", ["ü→漢", "a", "a b"], visits=[2.0], country=["CH"]),
    timeline("→3", ["a b"], age=[1.8e19], visits=[30.0], country=["JP"]),
    timeline("u4", ["a", "ü→漢"], visits=[40.0], country=["JP"]),
    timeline("u5", [], country=["FR"]),
]
CATALOGUE: list[Row] = [
    {"item": ["a b"], "title": ["The Thing, 1982!"], "genres": [LINE_ENDS, "z"], "year": [1980.0]},
    {"item": ["ü→漢"], "title": ["東京 物語 the"], "genres": [LINE_ENDS], "year": [2000.0]},
    {
        "item": ["a"],
        "title": ["ÉTÉ été thing THE the"],
        "genres": ["rare", "z"],
        "cover": [3.0, 0.0, 4.0],
    },
    {"item": ["c"], "year": [2020.0], "section": ["film > noir"], "cover": [0.1] * 3},
    {"item": ["d"], "title": ["..."], "genres": ["z", LINE_ENDS], "section": ["film"]},
]


@dataclass(frozen=True)
class Transformed:
    """Output of Transform for `TIMELINES` and `CATALOGUE`."""

    directory: str
    output: tft.TFTransformOutput
    timelines: list[Row]
    catalogue: list[Row]
    timeline_files: list[str]
    catalogue_files: list[str]

    def index(self, item: str) -> int:
        for raw, row in zip(CATALOGUE, self.catalogue, strict=True):
            if raw["item"] == [item]:
                return int(row["item"][0])
        raise KeyError(item)

    def device(self, name: str) -> int:
        for raw, row in zip(TIMELINES, self.timelines, strict=True):
            if name in raw["device"]:
                return int(row["device"][raw["device"].index(name)])
        raise KeyError(name)


@pytest.fixture(scope="session")
def raw_spec() -> FeatureSpec:
    return RAW_SPEC


@pytest.fixture(scope="session")
def transformed(
    tmp_path_factory: pytest.TempPathFactory, write_examples: Callable[..., str]
) -> Transformed:
    import apache_beam as beam
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    floats = {"age", "visits", "year", "rating", "cover"}
    integers = {"timestamp", "is_target"}
    names = {name for row in [*TIMELINES, *CATALOGUE] for name in row}
    parsing = {
        name: tf.io.VarLenFeature(
            tf.float32 if name in floats else tf.int64 if name in integers else tf.string
        )
        for name in sorted(names)
    }
    rows = [
        {
            name: [v.encode() if isinstance(v, str) else v for v in row.get(name, [])]
            for name in parsing
        }
        for row in [*TIMELINES, *CATALOGUE]
    ]
    folder = tmp_path_factory.mktemp("transform")
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(parsing))
    custom_config = {SPEC_KEY: RAW_SPEC.model_dump(mode="json"), QUERY_VOCABULARY_KEY: True}
    with (
        beam.Pipeline(argv=["--runner=DirectRunner", "--direct_running_mode=in_memory"]) as runner,
        tft_beam.Context(temp_dir=str(folder / "tmp")),
    ):
        data = runner | beam.Create(rows, reshuffle=False)
        transform_fn = (data, metadata) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, custom_config)
        )
        _ = transform_fn | tft_beam.WriteTransformFn(str(folder / "out"))
    output = tft.TFTransformOutput(str(folder / "out"))
    parsed = output.transform_features_layer()(
        {
            name: tf.ragged.constant(
                [row[name] for row in rows], feature.dtype, ragged_rank=1
            ).to_sparse()
            for name, feature in parsing.items()
        }
    )
    lists = {name: tf.RaggedTensor.from_sparse(values).to_list() for name, values in parsed.items()}
    done = [{name: lists[name][number] for name in lists} for number in range(len(rows))]
    timelines, catalogue = done[: len(TIMELINES)], done[len(TIMELINES) :]
    return Transformed(
        str(folder / "out"),
        output,
        timelines,
        catalogue,
        [write_examples(folder / "train", timelines)],
        [write_examples(folder / "candidates", catalogue)],
    )


NUM_USERS, NUM_ITEMS = 48, 20


@dataclass(frozen=True)
class Communities:
    """Users of two communities with items of their own community only."""

    spec: FeatureSpec
    files: list[str]
    timelines: list[list[int]]

    @staticmethod
    def of(index: int) -> int:
        """Return the community of a user or of an item."""
        return index % 2

    def items(self, community: int) -> set[int]:
        return {item for item in range(NUM_ITEMS) if self.of(item) == community}

    @property
    def counts(self) -> np.ndarray:
        taken = [item for timeline in self.timelines for item in timeline]
        return np.bincount(taken, minlength=NUM_ITEMS).astype(np.int64)


@pytest.fixture(scope="session")
def communities(
    tmp_path_factory: pytest.TempPathFactory, write_examples: Callable[..., str]
) -> Communities:
    rng = np.random.default_rng(11)
    timelines = [
        (rng.choice(NUM_ITEMS // 2, rng.integers(4, 9), replace=False) * 2 + user % 2).tolist()
        for user in range(NUM_USERS)
    ]
    spec = feature_spec()
    rows = [{"user": [user], "item": timeline} for user, timeline in enumerate(timelines)]
    folder = tmp_path_factory.mktemp("communities")
    return Communities(spec, [write_examples(folder, rows)], timelines)


def random_model(
    transformed: Transformed, config: ModelConfig, training: TrainingConfig | None = None
) -> TwoTowerModel:
    """Return a model of `TIMELINES` and `CATALOGUE` whose weights are random numbers."""
    sizes = FeatureSizes.from_transform(transformed.output, RAW_SPEC, query_vocabulary=True)
    model = TwoTowerModel(
        RAW_SPEC,
        sizes,
        config,
        training or TrainingConfig(),
        read_candidate_features(transformed.catalogue_files, RAW_SPEC, sizes.candidates - 1),
        candidate_counts(transformed.output, RAW_SPEC),
        len(TIMELINES),
    )
    query = {name: tf.constant([[0]]) for name in ("user", "visits", "country", "device")}
    model.embed_positions({**query, "age": tf.constant([[0.0]])}, tf.constant([[0]]))
    model.candidates(tf.constant([0]))
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def raw_queries(rows: list[dict[str, Any]]) -> dict[str, tf.Tensor]:
    """Return inputs of `embed_query` for `RAW_SPEC`; missing keys are missing values."""
    missing = {"user": "", "age": math.nan, "visits": math.nan, "country": "", "device": ""}
    lists = {name: [row.get(name, []) for row in rows] for name in ("history", "history_types")}
    return {
        **{
            key: tf.constant([row.get(key, value) for row in rows])
            for key, value in missing.items()
        },
        **{
            name: tf.ragged.constant(values, tf.string, ragged_rank=1).to_tensor("")
            for name, values in lists.items()
        },
    }


def export_model(
    model: TwoTowerModel, transform: tft.TFTransformOutput, directory: str, **options: Any
) -> None:
    export_towers(model.query_tower, model.candidate_tower, transform, directory, **options)


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Switch on deterministic kernels, as `models.training.trainer.run_fn` does."""
    from tensorflow.python.framework import config

    tf.config.experimental.enable_op_determinism()
    yield
    config.disable_op_determinism()


@pytest.fixture
def fitting(
    communities: Communities, tmp_path: Path, deterministic: None
) -> Callable[..., Fitting]:
    """Make a model of the communities and its data; runs in the same folder share checkpoints."""
    # The trainer imports TFX, which most tests here do without.
    from tests.models.fitting import Fitting

    def make(folder: str = "run", **settings: Any) -> Fitting:
        return Fitting(communities, tmp_path / folder, **settings)

    return make
