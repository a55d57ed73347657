from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.ranking.importance import cross_norms
from models.ranking.report import write_report


def test_the_norm_of_a_pair_is_that_of_both_its_blocks():
    kernel = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32)
    norms = cross_norms(kernel, {"a": slice(0, 1), "b": slice(1, 3)})
    assert list(norms) == [("b", "b"), ("a", "b"), ("a", "a")]
    assert norms["a", "a"] == 1.0
    assert norms["a", "b"] == pytest.approx(np.sqrt(2**2 + 3**2 + 4**2 + 7**2))
    assert norms["b", "b"] == pytest.approx(np.sqrt(5**2 + 6**2 + 8**2 + 9**2))


def test_the_report_has_a_table_and_a_chart_of_each_measure(tmp_path: Path):
    importance = {"score": {"value": 0.2, "low": 0.1, "high": 0.3}}
    crosses = {"score × age": 0.5, "age × age": 0.25}
    report = {"measured": {"importance": importance}, "crosses": crosses}
    write_report(report, str(tmp_path / "with"))
    assert json.loads((tmp_path / "with" / "ranking.json").read_text()) == report
    table = pq.read_table(tmp_path / "with" / "feature_crosses.parquet")
    assert table.to_pylist()[1] == {"feature": "age", "other_feature": "age", "norm": 0.25}
    for name, label in (("feature_importance", "score"), ("feature_crosses", "score × age")):
        chart = (tmp_path / "with" / f"{name}.svg").read_text()
        assert f">{label}<" in chart
        assert "xlink:href" not in chart  # it loads nothing
    # A linear ranker has no crosses.
    write_report({**report, "crosses": {}}, str(tmp_path / "without"))
    assert not list((tmp_path / "without").glob("feature_crosses*"))
