"""Distances between distributions, through TFDV's statistics as the gate takes them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2

from components.drift_gate.comparison import Sides, Statistics, quantile_divergence
from components.drift_gate.config import DistanceConfig
from components.stock.statistics_gen import statistics_of

CHANCE = np.random.default_rng(0)
BULK, SAME_BULK = CHANCE.normal(0, 1, (2, 5000))


def statistics(values: Sequence[Any], quantiles: int = 10) -> Statistics:
    is_text = isinstance(values[0], str) if len(values) else True
    kind = pa.binary() if is_text else pa.float32()
    lists = pa.array([[v.encode() if is_text else float(v)] for v in values], pa.list_(kind))
    options = tfdv.StatsOptions(num_quantiles_histogram_buckets=quantiles)
    batches = iter([pa.RecordBatch.from_arrays([lists], ["x"])])
    return statistics_of(batches, options)


@pytest.mark.parametrize("quantiles", [10, 100])
@pytest.mark.parametrize(
    ("new", "good", "least", "most"),
    [
        pytest.param(BULK, BULK, 0, 0, id="the same"),
        pytest.param(SAME_BULK, BULK, 0, 0.005, id="as usual"),
        pytest.param([*SAME_BULK, 1e9], BULK, 0, 0.005, id="one outlier now"),
        pytest.param(SAME_BULK, [*BULK, 1e9], 0, 0.005, id="one outlier then"),
        pytest.param([*SAME_BULK, np.inf], BULK, 0, 0.005, id="one infinite"),
        pytest.param([*SAME_BULK + 100, 1e9], [*BULK, 1e9], 0.7, 1, id="the bulk moved"),
        pytest.param(SAME_BULK + 100, BULK, 1, 1, id="apart, above"),
        pytest.param(SAME_BULK - 100, BULK, 1, 1, id="apart, below"),
        pytest.param(SAME_BULK + 1, BULK, 0.1, 0.3, id="by its deviation"),
        pytest.param([0] * 99, [0] * 50, 0, 0, id="one value"),
        pytest.param([5] * 99, [0] * 50, 1, 1, id="another value"),
        pytest.param([1, 2] * 50, [3, 4] * 50, 1, 1, id="other values"),
        # Half of the zeros came to be twos: 3/4 and 1/4 against 1/2 and 1/2 diverge by 0.0488.
        pytest.param([0, 0, 0, 2] * 99, [0, 2] * 99, 0.045, 0.055, id="other shares"),
    ],
)
def test_sees_the_bulk_and_not_the_outliers(
    new: Sequence[float], good: Sequence[float], least: float, most: float, quantiles: int
) -> None:
    samples = (statistics(values, quantiles).datasets[0].features[0] for values in (new, good))
    measured = quantile_divergence(*(sample.num_stats for sample in samples))
    # A bucket may straddle two values.
    slack = 0.25 / quantiles
    assert least - slack <= measured <= most + slack


@pytest.mark.parametrize("kind", ["l_infinity", "jensen_shannon"])
def test_distances_of_categories_equal_those_of_tfdv(kind: str) -> None:
    sides = [statistics(CHANCE.choice(list(values), 500).tolist()) for values in ("aab", "abbcd")]
    schema = schema_pb2.Schema()
    comparator = schema.feature.add(name="x", type=schema_pb2.BYTES).drift_comparator
    name = "infinity_norm" if kind == "l_infinity" else "jensen_shannon_divergence"
    getattr(comparator, name).threshold = 1.0
    anomalies = tfdv.validate_statistics(sides[0], schema, previous_statistics=sides[1])
    [found] = anomalies.drift_skew_info[0].drift_measurements
    measured = Sides(*sides, "new", "old").distance("x", DistanceConfig(**{kind: 1.0}), "drift")
    assert measured.value == pytest.approx(found.value)
    assert 0.1 < measured.value < 1


@pytest.mark.parametrize(
    ("new", "good", "reason"),
    [
        ([1.0, 2.0], [1.0], r"`drift\.x\.l_infinity`\).*: `l_infinity` needs categories"),
        (["a"], [1.0], "needs categories on both sides, but there are numbers"),
        ([], ["a"], "cannot be measured: there are no values in the new span"),
        ([], [], "there are no values in the new span or the old one"),
    ],
)
def test_a_distance_that_cannot_be_measured_fails_closed_with_its_reason(
    new: Sequence[Any], good: Sequence[Any], reason: str
) -> None:
    sides = Sides(statistics(new), statistics(good), "the new span", "the old one")
    finding = sides.distance("x", DistanceConfig(l_infinity=0.1), "drift")
    assert math.isnan(finding.value)
    assert finding.is_exceeded
    assert finding.to_json()["value"] is None
    assert re.search(reason, str(finding)), str(finding)
