"""The report of a ranking stage: JSON, and the importance of features as Parquet and as charts."""

import json
import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pygal
import tensorflow as tf
from pygal.style import DefaultStyle

REPORT_FILE = "ranking.json"
IMPORTANCE_FILE = "feature_importance.parquet"
CROSS_FILE = "feature_crosses.parquet"
# Between the names of two features.
PAIR = " × "
_NUM_SHOWN = 25


def write_report(report: Mapping[str, Any], directory: str) -> None:
    """Write `ranking.json`, and a Parquet file and an SVG chart of each measure of importance.

    The content of the files is documented in docs/ranking.md.
    """
    tf.io.gfile.makedirs(directory)
    text = json.dumps(report, indent=2, ensure_ascii=False)
    _write(os.path.join(directory, REPORT_FILE), text.encode())
    importance = report["measured"]["importance"]
    rows = [{"feature": name, **values} for name, values in importance.items()]
    _write_table(os.path.join(directory, IMPORTANCE_FILE), rows)
    fall = {name: values["value"] for name, values in importance.items()}
    _write_chart(os.path.join(directory, IMPORTANCE_FILE), "fall of ndcg@10 if shuffled", fall)
    if crosses := report["crosses"]:
        names = ("feature", "other_feature", "norm")
        rows = [
            dict(zip(names, (*pair.split(PAIR), norm), strict=True))
            for pair, norm in crosses.items()
        ]
        _write_table(os.path.join(directory, CROSS_FILE), rows)
        _write_chart(os.path.join(directory, CROSS_FILE), "norm of the cross block", crosses)


def _write_table(path: str, rows: list[dict[str, Any]]) -> None:
    content = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), content)
    _write(path, content.getvalue().to_pybytes())


def _write_chart(table_path: str, title: str, values: Mapping[str, float]) -> None:
    """Write a chart of the first values next to the table. It loads nothing from the network."""
    chart = pygal.HorizontalBar(
        style=DefaultStyle, width=960, height=640, js=[], show_legend=False, x_title=title
    )
    chart.uuid = title.replace(" ", "-")  # random by default
    shown = list(values.items())[:_NUM_SHOWN][::-1]  # pygal draws the first bar at the bottom
    chart.x_labels = [name for name, _ in shown]
    chart.add(title, [value for _, value in shown])
    _write(table_path.removesuffix(".parquet") + ".svg", chart.render())


def _write(path: str, content: bytes) -> None:
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(content)
