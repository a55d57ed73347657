"""The divergence of numbers, through TFDV's statistics as the gate takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv

from components.drift_gate.quantile_divergence import quantile_divergence
from components.stock.statistics_gen import statistics_of

CHANCE = np.random.default_rng(0)
BULK, SAME_BULK = CHANCE.normal(0, 1, (2, 5000))


def statistics(values: Sequence[float], quantiles: int) -> Any:
    lists = pa.array([[float(value)] for value in values], pa.list_(pa.float32()))
    options = tfdv.StatsOptions(num_quantiles_histogram_buckets=quantiles)
    batches = iter([pa.RecordBatch.from_arrays([lists], ["x"])])
    return statistics_of(batches, options).datasets[0].features[0].num_stats


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
    measured = quantile_divergence(statistics(new, quantiles), statistics(good, quantiles))
    # A bucket may straddle two values.
    slack = 0.25 / quantiles
    assert least - slack <= measured <= most + slack
