"""Holds logged requests against the statistics that the served model was trained on."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow_data_validation as tfdv
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from components.drift_gate.comparison import Finding, feature_distance
from components.drift_gate.config import DistanceConfig
from components.drift_gate.feature_statistics import share_missing
from components.drift_gate.span_profile import known_candidates
from components.in_process.statistics_executor import statistics_of
from components.interactions.stable_hash import Hashes, hash_strings
from models.features.preprocessing import SPACE_IN_ID
from models.features.spec import HISTORY_KEY, FeatureSpec
from models.training.warm_start import read_vocabulary
from pipeline.config.project import PipelineConfig
from pipeline.runs.evaluation import newest_run_outputs
from pipeline.skew.request_log import RequestLog, RequestLogError, Row

_BATCH_ROWS = 4096
# What a run has that fitted a model and pushed it.
_NEEDED = {
    "TimelineExampleGen": "examples",
    "StatisticsGen": "statistics",
    "Trainer": "model",
    "Pusher": "pushed_model",
}
# Holds the ids of the training queries where the model has vectors for them.
_TRANSFORM = "Transform"
_STATISTICS_FILE = os.path.join("Split-train", "FeatureStats.pb")


class SkewFinding(Finding):
    """One measure; without a threshold it is shown and never beyond it, also without a value."""

    @property
    def is_exceeded(self) -> bool:
        """Whether the value is beyond the threshold; without a value it counts as such."""
        return self.threshold != math.inf and super().is_exceeded


@dataclass(frozen=True)
class SkewReport:
    """What came of a comparison.

    Attributes:
        num_requests: Requests with queries.
        num_queries: Queries in them.
        num_others: Requests without a query, which were left out.
        statistics: URI of the statistics that they were held against.
        findings: Every measure; those without a threshold of the configuration have infinity.
    """

    num_requests: int
    num_queries: int
    num_others: int
    statistics: str
    findings: tuple[Finding, ...]

    @property
    def is_skewed(self) -> bool:
        """Whether a value is beyond its threshold."""
        return any(finding.is_exceeded for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As plain data; a measure without a threshold has none."""
        findings = [finding.to_json() for finding in self.findings]
        for finding in findings:
            if finding["threshold"] == math.inf:
                finding["threshold"] = None
        return {**self.__dict__, "skewed": self.is_skewed, "findings": findings}


def compare_requests(config: PipelineConfig, requests: Path) -> SkewReport:
    """Compares the queries of logged requests with the training timelines of the newest model.

    That is the one that was fitted and pushed last: a refresh of the index has no training
    timelines, and those of a run that was stopped were refused.

    Args:
        config: The use.
        requests: See `request_log`.

    Raises:
        EvaluationError: There is no such run yet, or its artifacts are gone.
        RequestLogError: The file is no log of requests, or it holds no query.
    """
    has_query_ids = config.model.query_id_embedding
    needed = {**_NEEDED, **({_TRANSFORM: "transform_graph"} if has_query_ids else {})}
    run = newest_run_outputs(config, needed)
    uri = run["StatisticsGen"]
    trained = statistics_pb2.DatasetFeatureStatisticsList.FromString(
        io_utils.read_bytes_file(os.path.join(uri, _STATISTICS_FILE))
    )
    log = RequestLog(requests, config.spec)
    queries = _Queries(config.spec, log.rows())
    asked = statistics_of(queries.batches(), tfdv.StatsOptions(use_sketch_based_topk_uniques=True))
    if not queries.num_rows:
        raise RequestLogError(
            f"{requests} holds no query; {log.num_others:,} requests are of other signatures"
        )
    findings = [
        *_missing(config, queries, trained),
        _unknown(config, queries, run["TimelineExampleGen"]),
        *([_unknown_queries(config, queries, run[_TRANSFORM])] if has_query_ids else []),
        *_distances(config, asked, trained),
    ]
    return SkewReport(log.num_requests, queries.num_rows, log.num_others, uri, tuple(findings))


class _Queries:
    """The queries of a log, counted while they are read."""

    def __init__(self, spec: FeatureSpec, rows: Iterator[Row]) -> None:
        self._spec = spec
        self._rows = rows
        self.num_rows = 0
        self.num_with: dict[str, int] = dict.fromkeys(spec.query_features, 0)
        self.num_with_history = 0
        self.history: Counter[str] = Counter()
        # Those without an id count under "".
        self.ids: Counter[str] = Counter()

    def batches(self) -> Iterator[pa.RecordBatch]:
        features = self._spec.query_features
        while rows := list(islice(self._rows, _BATCH_ROWS)):
            self.num_rows += len(rows)
            for row in rows:
                self.num_with_history += bool(row[HISTORY_KEY])
                self.history.update(row[HISTORY_KEY])
                self.ids["".join(row[self._spec.query_id])] += 1
            columns = {self._spec.candidate_id: _lists(rows, HISTORY_KEY, pa.binary())}
            for name, feature in features.items():
                self.num_with[name] += sum(1 for row in rows if row[name])
                kind = pa.float32() if feature.kind == "numeric" else pa.binary()
                columns[name] = _lists(rows, name, kind)
            yield pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def _lists(rows: Sequence[Row], name: str, kind: pa.DataType) -> pa.Array:
    is_text = pa.types.is_binary(kind)
    values = [[v.encode() for v in row[name]] if is_text else row[name] for row in rows]
    return pa.array(values, pa.list_(kind))


def _unknown(config: PipelineConfig, queries: _Queries, examples_uri: str) -> Finding:
    measure, value = "share of history events with an unknown candidate", math.nan
    if queries.history:
        examples = standard_artifacts.Examples()
        examples.uri = examples_uri
        examples.split_names = '["candidates"]'
        examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
        known: Hashes = known_candidates(examples, config.spec.candidate_id)
        counts = np.array(list(queries.history.values()))
        unknown = ~np.isin(hash_strings(pa.array(list(queries.history), pa.string())), known)
        value = float(counts[unknown].sum() / counts.sum())
        measure = f"share of history events with one of {unknown.sum():,} unknown candidates"
    setting, lacking = "skew.max_unknown", "no request has a history"
    return _finding(HISTORY_KEY, measure, value, config.skew.max_unknown, setting, lacking)


def _unknown_queries(config: PipelineConfig, queries: _Queries, transform_uri: str) -> Finding:
    name = config.spec.query_id
    path = tft.TFTransformOutput(transform_uri).vocabulary_file_by_name(name)
    measure, value = "share of ids that are unknown or missing", math.nan
    if path is not None:
        known = frozenset(read_vocabulary(path, counted=True))
        unknown = {
            query: count
            for query, count in queries.ids.items()
            if query.replace(" ", SPACE_IN_ID).encode() not in known
        }
        value = sum(unknown.values()) / queries.num_rows
        measure = f"share of {len(unknown):,} ids that are unknown or missing"
    setting = "skew.max_unknown_queries"
    lacking = "the model that was trained last has no vectors for them"
    return _finding(name, measure, value, config.skew.max_unknown_queries, setting, lacking)


def _missing(
    config: PipelineConfig,
    queries: _Queries,
    trained: statistics_pb2.DatasetFeatureStatisticsList,
) -> Iterator[Finding]:
    skew = config.skew
    for name in config.spec.query_features:
        value, measure = _difference(queries.num_with[name], queries, share_missing(name, trained))
        yield _finding(name, measure, value, skew.max_missing, "skew.max_missing")
    before = share_missing(config.spec.candidate_id, trained)
    value, measure = _difference(queries.num_with_history, queries, before)
    setting = "skew.max_missing_history"
    yield _finding(HISTORY_KEY, measure, value, skew.max_missing_history, setting)


def _difference(num_with: int, queries: _Queries, before: float) -> tuple[float, str]:
    now = 1 - num_with / queries.num_rows
    return (
        abs(now - before),
        f"missing in {now:.1%} of requests, in {before:.1%} of training; difference",
    )


def _distances(
    config: PipelineConfig,
    asked: statistics_pb2.DatasetFeatureStatisticsList,
    trained: statistics_pb2.DatasetFeatureStatisticsList,
) -> Iterator[Finding]:
    kinds = {name: feature.kind for name, feature in config.spec.query_features.items()}
    for name in (*kinds, config.spec.candidate_id):
        given = config.skew.distances.get(name)
        numeric = kinds.get(name) == "numeric"
        distance = given or (
            DistanceConfig(jensen_shannon=1.0) if numeric else DistanceConfig(l_infinity=1.0)
        )
        linf = distance.l_infinity is not None
        key = "l_infinity" if linf else "jensen_shannon"
        value = feature_distance(name, distance, asked, trained)
        yield _finding(
            name,
            "L-infinity distance" if linf else "Jensen-Shannon divergence",
            value,
            getattr(given, key) if given is not None else None,
            f"skew.distances.{name}.{key}",
        )


def _finding(
    feature: str,
    measure: str,
    value: float,
    threshold: float | None,
    setting: str,
    lacking: str = Finding.lacking,
) -> Finding:
    limit = math.inf if threshold is None else threshold
    return SkewFinding(feature, measure, value, "at most", limit, setting, lacking)
