"""Comparison of logged requests with the training data of the served model."""

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

from components.drift_gate.comparison import Finding, feature_distance, share_missing
from components.drift_gate.config import DistanceConfig
from components.drift_gate.span_profile import known_candidates
from components.interactions.stable_hash import Hashes, hash_strings
from components.stock.statistics_gen import statistics_of
from models.features.preprocessing import SPACE_IN_ID
from models.features.spec import HISTORY_KEY, FeatureSpec
from models.features.vocabularies import read_vocabulary
from pipeline.config.project import PipelineConfig
from pipeline.errors import RequestLogError
from pipeline.runs.evaluation import newest_run_outputs
from pipeline.skew.request_log import RequestLog, Row

_BATCH_ROWS = 4096
# Output keys by component. Only a run that trained and pushed a model has all these outputs.
_NEEDED = {
    "TimelineExampleGen": "examples",
    "StatisticsGen": "statistics",
    "Trainer": "model",
    "Pusher": "pushed_model",
}
# Its output contains the vocabulary of query IDs if the model has an embedding for them.
_TRANSFORM = "Transform"
_STATISTICS_FILE = os.path.join("Split-train", "FeatureStats.pb")


class SkewFinding(Finding):
    """One measured value; a value without a threshold is only reported."""

    @property
    def is_exceeded(self) -> bool:
        """True if there is a threshold, and the value exceeds it or cannot be measured."""
        return self.threshold != math.inf and super().is_exceeded


@dataclass(frozen=True)
class SkewReport:
    """The result of a comparison.

    Attributes:
        num_requests: Number of requests to signatures whose input is a query.
        num_queries: Number of queries in these requests.
        num_others: Number of requests to other signatures, which are ignored.
        statistics: URI of the training statistics.
        findings: All measured values. The threshold is infinite if none is configured.
    """

    num_requests: int
    num_queries: int
    num_others: int
    statistics: str
    findings: tuple[Finding, ...]

    @property
    def is_skewed(self) -> bool:
        """True if a value exceeds its threshold."""
        return any(finding.is_exceeded for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-serializable data; an infinite threshold becomes None."""
        findings = [finding.to_json() for finding in self.findings]
        for finding in findings:
            if finding["threshold"] == math.inf:
                finding["threshold"] = None
        return {**self.__dict__, "skewed": self.is_skewed, "findings": findings}


def compare_requests(config: PipelineConfig, requests: Path) -> SkewReport:
    """Compare the queries of logged requests with the training timelines of the newest model.

    The timelines are those of the newest run that trained and pushed a model. Index refreshes have
    no training timelines, and models of refused runs are not served.

    Args:
        config: The configuration of the project.
        requests: File with logged requests, see `request_log`.

    Raises:
        EvaluationError: There is no such run, or its artifacts no longer exist.
        RequestLogError: The file is not a request log, or contains no query.
    """
    has_query_ids = config.model.query_id_embedding
    needed = {**_NEEDED, **({_TRANSFORM: "transform_graph"} if has_query_ids else {})}
    outputs = newest_run_outputs(config, needed)
    uri = outputs["StatisticsGen"]
    trained = statistics_pb2.DatasetFeatureStatisticsList.FromString(
        io_utils.read_bytes_file(os.path.join(uri, _STATISTICS_FILE))
    )
    log = RequestLog(requests, config.spec)
    queries = _Queries(config.spec, log.rows())
    served = statistics_of(queries.batches(), tfdv.StatsOptions(use_sketch_based_topk_uniques=True))
    if not queries.num_rows:
        raise RequestLogError(
            f"{requests} must have at least one query, but has none; {log.num_others:,} requests "
            "are to signatures without queries"
        )
    findings = [
        *_missing_values(config, queries, trained),
        _unknown_candidates(config, queries, outputs["TimelineExampleGen"]),
        *([_unknown_queries(config, queries, outputs[_TRANSFORM])] if has_query_ids else []),
        *_distances(config, served, trained),
    ]
    return SkewReport(log.num_requests, queries.num_rows, log.num_others, uri, tuple(findings))


class _Queries:
    """Iterator over the queries of a request log, which counts their values."""

    def __init__(self, spec: FeatureSpec, rows: Iterator[Row]) -> None:
        self._spec = spec
        self._rows = rows
        self.num_rows = 0
        self.num_with: dict[str, int] = dict.fromkeys(spec.query_features, 0)
        self.num_with_history = 0
        self.history: Counter[str] = Counter()
        # Queries without an ID have the key "".
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


def _unknown_candidates(config: PipelineConfig, queries: _Queries, examples_uri: str) -> Finding:
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
    measure, value = "share of unknown or missing IDs", math.nan
    if path is not None:
        known = frozenset(read_vocabulary(path, counted=True))
        unknown = {
            query: count
            for query, count in queries.ids.items()
            if query.replace(" ", SPACE_IN_ID).encode() not in known
        }
        value = sum(unknown.values()) / queries.num_rows
        measure = f"share of {len(unknown):,} unknown or missing IDs"
    setting = "skew.max_unknown_queries"
    lacking = "the newest trained model has no embeddings for them"
    return _finding(name, measure, value, config.skew.max_unknown_queries, setting, lacking)


def _missing_values(
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
        f"missing in {now:.1%} of requests and in {before:.1%} of training timelines; difference",
    )


def _distances(
    config: PipelineConfig,
    served: statistics_pb2.DatasetFeatureStatisticsList,
    trained: statistics_pb2.DatasetFeatureStatisticsList,
) -> Iterator[Finding]:
    kinds = {name: feature.kind for name, feature in config.spec.query_features.items()}
    for name in (*kinds, config.spec.candidate_id):
        configured = config.skew.distances.get(name)
        numeric = kinds.get(name) == "numeric"
        distance = configured or (
            DistanceConfig(jensen_shannon=1.0) if numeric else DistanceConfig(l_infinity=1.0)
        )
        linf = distance.l_infinity is not None
        key = "l_infinity" if linf else "jensen_shannon"
        value = feature_distance(name, distance, served, trained)
        yield _finding(
            name,
            "L-infinity distance" if linf else "Jensen-Shannon divergence",
            value,
            getattr(configured, key) if configured is not None else None,
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
