"""Comparison of logged requests with the training data of the served model."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow_data_validation as tfdv
import tensorflow_transform as tft
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils

from components.drift_gate.comparison import Finding, Sides, Statistics, compare_known
from components.drift_gate.config import DistanceConfig
from components.drift_gate.span_profile import known_candidates
from components.interactions.stable_hash import DistinctIds, hash_strings
from components.interactions.timelines.examples import value_type
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


@dataclass(frozen=True)
class SkewReport:
    """The result of a comparison."""

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
        """Return the report as JSON-serializable data."""
        findings = [finding.to_json() for finding in self.findings]
        return {**self.__dict__, "skewed": self.is_skewed, "findings": findings}


def compare_requests(config: PipelineConfig, requests: Path) -> SkewReport:
    """Compare the queries of logged requests with the training timelines of the newest model.

    The timelines are those of the newest run that trained and pushed a model. Index refreshes have
    no training timelines, and models of refused runs are not served.

    Raises:
        EvaluationError: There is no such run, or its artifacts no longer exist.
        RequestLogError: The file is not a request log, or contains no query.
    """
    has_query_ids = config.needs_query_vocabulary
    needed = {**_NEEDED, **({_TRANSFORM: "transform_graph"} if has_query_ids else {})}
    outputs = newest_run_outputs(config, needed)
    uri = outputs["StatisticsGen"]
    trained = Statistics.FromString(io_utils.read_bytes_file(os.path.join(uri, _STATISTICS_FILE)))
    log = RequestLog(requests, config.spec)
    queries = Queries(config.spec, log.rows())
    served = statistics_of(queries.batches(), tfdv.StatsOptions(use_sketch_based_topk_uniques=True))
    if not queries.num_rows:
        raise RequestLogError(
            f"{requests} must have at least one query, but has none; {log.num_others:,} requests "
            "are to signatures without queries"
        )
    sides = Sides(served, trained, "requests", "training timelines")
    findings = [
        *_missing_values(config, sides),
        _unknown_candidates(config, queries, outputs["TimelineExampleGen"]),
        *([unknown_queries(config, queries, outputs[_TRANSFORM])] if has_query_ids else []),
        *_distances(config, sides),
    ]
    return SkewReport(log.num_requests, queries.num_rows, log.num_others, uri, tuple(findings))


class Queries:
    """The queries of a request log, which are read once and counted."""

    def __init__(self, spec: FeatureSpec, rows: Iterator[Row]) -> None:
        self._spec = spec
        self._rows = rows
        self.num_rows = 0
        self.history = DistinctIds()
        self.ids = DistinctIds()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the features and, as the candidate ID, the histories."""
        spec = self._spec
        while rows := list(islice(self._rows, _BATCH_ROWS)):
            self.num_rows += len(rows)
            ids = ["".join(row[spec.query_id]).replace(" ", SPACE_IN_ID) for row in rows]
            self.ids.add(pa.array(ids, pa.string()))
            columns = {spec.candidate_id: _lists(rows, HISTORY_KEY, pa.binary())}
            self.history.add(columns[spec.candidate_id].flatten())
            for name, feature in spec.query_features.items():
                columns[name] = _lists(rows, name, value_type(feature))
            yield pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def _lists(rows: Sequence[Row], name: str, kind: pa.DataType) -> pa.Array:
    is_text = pa.types.is_binary(kind)
    values = [[v.encode() for v in row[name]] if is_text else row[name] for row in rows]
    return pa.array(values, pa.list_(kind))


def _unknown_candidates(config: PipelineConfig, queries: Queries, examples_uri: str) -> Finding:
    examples = standard_artifacts.Examples()
    examples.uri = examples_uri
    examples.split_names = artifact_utils.encode_split_names(["candidates"])
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    return compare_known(
        HISTORY_KEY,
        "share of history events with one of {} unknown candidates",
        queries.history.merged(),
        known_candidates(examples, config.spec.candidate_id),
        config.skew.max_unknown,
        "skew.max_unknown",
        "no request has a history",
    )


def unknown_queries(config: PipelineConfig, queries: Queries, transform_uri: str) -> Finding:
    """Measure the share of queries whose ID is not in the vocabulary of the trained model."""
    name, skew = config.spec.query_id, config.skew
    path = tft.TFTransformOutput(transform_uri).vocabulary_file_by_name(name)
    measure, setting = "share of {} unknown or missing IDs", "skew.max_unknown_queries"
    if path is None:
        lacking = "the newest trained model has no embeddings for them"
        measure, value = measure.replace(" {}", ""), np.nan
        return Finding(name, measure, value, skew.max_unknown_queries, setting, lacking=lacking)
    known = hash_strings(pa.array(read_vocabulary(path, counted=True), pa.binary()))
    seen = queries.ids.merged()
    return compare_known(name, measure, seen, known, skew.max_unknown_queries, setting)


def _missing_values(config: PipelineConfig, sides: Sides) -> Iterator[Finding]:
    skew, candidate_id = config.skew, config.spec.candidate_id
    settings = dict.fromkeys(config.spec.query_features, (skew.max_missing, "skew.max_missing"))
    settings[candidate_id] = skew.max_missing_history, "skew.max_missing_history"
    for name, (threshold, setting) in settings.items():
        shown = HISTORY_KEY if name == candidate_id else name
        yield sides.missing(name, threshold, setting, shown)


def _distances(config: PipelineConfig, sides: Sides) -> Iterator[Finding]:
    kinds = {name: feature.kind for name, feature in config.spec.query_features.items()}
    for name in (*kinds, config.spec.candidate_id):
        configured = config.skew.distances.get(name)
        distance = configured or (
            DistanceConfig(jensen_shannon=1.0)
            if kinds.get(name) == "numeric"
            else DistanceConfig(l_infinity=1.0)
        )
        is_judged = configured is not None
        yield sides.distance(name, distance, "skew.distances", is_judged=is_judged)
