"""The report of an index: what was built, why, how good it is, and what else was tried."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.index_builder.trade_off_picture import trade_off_svg
from components.index_builder.tuning import Setting, Trial

REPORT_FILE = "index_report.json"

PICTURE_FILE = "trade_off.svg"


@dataclass(frozen=True)
class IndexReport:
    """What was built.

    Attributes:
        backend: `exact`, `scann` or `partitioned`.
        reason: Why this one, with these settings.
        k: Candidates in an answer.
        recall: Measured recall@k against exact search on the judging queries.
        recall_target: What it had to reach.
        hit_rate_exact: Share of held-out events among the k of exact search; None where nothing was
            held out.
        hit_rate: The same through the index.
        query_ms: Median milliseconds of a query that comes alone.
        num_candidates: In the index.
        dimension: Of the vectors.
        num_recall_queries: Queries that judged.
        num_tuning_queries: Queries that tuned, others.
        settings: Of the backend.
        build_s: Seconds to choose, tune and build the index.
        gate: Its thresholds and what decided.
        trials: What tuning tried, as it tried them: the curve of recall against time.
    """

    backend: str
    reason: str
    k: int
    recall: float
    recall_target: float
    hit_rate_exact: float | None
    hit_rate: float | None
    query_ms: float
    num_candidates: int
    dimension: int
    num_recall_queries: int
    num_tuning_queries: int
    settings: Setting
    build_s: float
    gate: Mapping[str, Any]
    trials: tuple[Trial, ...] = ()


def write_report(report: IndexReport, directory: str) -> None:
    """Writes `index_report.json`, and the trade-off as a picture where settings were tried."""
    text = json.dumps(asdict(report), indent=2)
    io_utils.write_string_file(os.path.join(directory, REPORT_FILE), text)
    if not report.trials:
        return
    picture = trade_off_svg(report.trials, report.settings, report.k, report.recall_target)
    with fileio.open(os.path.join(directory, PICTURE_FILE), "wb") as file:
        file.write(picture)
