"""Lookup of histories and features in the input files, for requests to a served model.

The lookup reads the files with the readers of ingestion, so a history equals the query's timeline.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.interactions.config import Source
from components.interactions.rows.checks import rated_high_enough, read_rows
from components.interactions.rows.id_normalization import normalize
from components.interactions.sources.columns import FILE, LINE
from components.interactions.sources.files import find_files
from components.interactions.timelines.examples import feature_lists
from components.interactions.timelines.timelines import collapse_funnels, order_events
from models.features.spec import (
    EVENT_TYPE_KEY,
    HISTORY_KEY,
    HISTORY_TYPES_KEY,
    FeatureConfig,
)
from pipeline.config.project import PipelineConfig
from serving.clients.query import Query


def served_ids(config: PipelineConfig, ids: Sequence[str]) -> list[str]:
    """Return IDs in the form that the served model knows: with `ingest.normalize_ids`."""
    known: list[str] = normalize(
        pa.array(ids, pa.string()), config.ingest.normalize_ids
    ).to_pylist()
    return known


def known_query(
    config: PipelineConfig,
    query_id: str,
    history: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    *,
    include_seen: bool = False,
) -> Query:
    """Return the query of a client in production, with the query's features and history.

    The history is read from the files of the events, unless it is given. Its candidates are
    excluded, unless `include_seen` is true.

    Raises:
        IngestError: A file is missing or unreadable.
    """
    (query_id,) = served_ids(config, [query_id])
    known = (
        query_events(config, query_id)
        if history is None
        else {HISTORY_KEY: served_ids(config, history)}
    )
    events = known.pop(HISTORY_KEY)
    return Query(
        query_id,
        events,
        {**query_features(config, query_id), **known},
        [*served_ids(config, exclude), *(() if include_seen else events)],
    )


def query_history(config: PipelineConfig, query_id: str) -> list[str]:
    """Return the candidate IDs of a query's events, as `query_events` does."""
    return query_events(config, query_id)[HISTORY_KEY]


def query_events(config: PipelineConfig, query_id: str) -> dict[str, list[str]]:
    """Return the history of a query as model inputs, oldest first; empty if it is unknown.

    The inputs are the candidate IDs and, with `events.types`, the event types. As in ingestion,
    rejected rows, events with low ratings, dropped duplicates and collapsed events are excluded.

    Raises:
        IngestError: A file is missing or unreadable.
    """
    names = history_columns(config)
    found = list(read_source(config, "interactions", config.spec.query_id, [query_id]))
    if not found:
        return {key: [] for key in names}
    events = timelines_of(config, found)
    return {key: events[name].cast(pa.string()).to_pylist() for key, name in names.items()}


def history_columns(config: PipelineConfig) -> dict[str, str]:
    """Return the columns of events that are inputs of a model, by the name of the input."""
    names = {HISTORY_KEY: config.spec.candidate_id}
    if config.spec.columns.event_types:
        names[HISTORY_TYPES_KEY] = EVENT_TYPE_KEY
    return names


def timelines_of(config: PipelineConfig, rows: Sequence[pa.Table]) -> pa.Table:
    """Return the events of complete queries as ingestion orders them, one query after the other."""
    data = config.data
    events = pa.concat_tables(rows).sort_by([(key, "ascending") for key in (FILE, LINE)])
    keys = config.spec.query_id, config.spec.candidate_id
    events, _ = order_events(events, *keys, drop_duplicates=data.duplicate_events == "drop")
    if data.collapse_within_s is not None:
        events, _ = collapse_funnels(events, *keys, data.type_order, data.collapse_within_s)
    return events


def query_features(config: PipelineConfig, query_id: str) -> dict[str, Any]:
    """Return a query's features as model inputs; empty if the query is unknown.

    The result is empty if they are in a BigQuery query, because running it costs money.

    Raises:
        IngestError: A file is missing or unreadable.
    """
    spec = config.spec
    if config.data.queries is None or not spec.query_features or "queries" in config.data.queried:
        return {}
    for table in read_source(config, "queries", spec.query_id, [query_id]):
        lists = _lists(table.slice(0, 1), spec.query_features)
        return as_inputs({name: of[0] for name, of in lists.items()}, spec.query_features)
    return {}


def describe_candidates(
    config: PipelineConfig, candidate_ids: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Return the features of candidates as text, by candidate ID and feature name.

    The result is empty if the catalogue is a BigQuery query, because running it costs money.

    Raises:
        IngestError: A file is missing or unreadable.
    """
    spec = config.spec
    features = spec.catalogue_features
    if config.data.candidates is None or not features or "candidates" in config.data.queried:
        return {}
    described: dict[str, dict[str, str]] = {}
    for table in read_source(config, "candidates", spec.candidate_id, candidate_ids):
        lists = _lists(table, features)
        for row, candidate_id in enumerate(table[spec.candidate_id].to_pylist()):
            described.setdefault(
                candidate_id,
                {name: as_text(values[row], features[name]) for name, values in lists.items()},
            )
    return described


def read_source(
    config: PipelineConfig, source: Source, key: str = "", ids: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yield blocks of the valid rows, or of those whose column `key` contains one of `ids`.

    Raises:
        IngestError: A file is missing or unreadable.
    """
    ingest = config.ingestion
    # Missing spans can stop a run, but must not prevent a lookup.
    spans = ingest.data.spans.model_copy(update={"missing": "warn"})
    data = ingest.data.model_copy(update={"spans": spans})
    ingest = ingest.model_copy(update={"data": data})
    wanted = None if ids is None else pa.array(list(ids), pa.string())
    for file in find_files(ingest, [source]):
        if not file.header:
            continue
        for good, _ in read_rows(ingest, file):
            if source == "interactions":
                good = rated_high_enough(good, ingest.data.min_rating)
            if wanted is not None:
                good = good.filter(pc.is_in(good[key].cast(pa.string()), value_set=wanted))
            if len(good):
                yield good


def as_inputs(
    values: Mapping[str, Sequence[Any]], features: Mapping[str, FeatureConfig]
) -> dict[str, Any]:
    """Return the features of one row, given as lists of values, as inputs of a model."""
    return {
        name: list(of) if features[name].is_list else of[0] for name, of in values.items() if of
    }


def as_text(values: Sequence[Any], feature: FeatureConfig) -> str:
    """Return the values of a feature as text."""
    if feature.kind == "vector":
        return f"{len(values)} numbers"
    if feature.kind == "datetime":
        return " ".join(datetime.fromtimestamp(value, timezone.utc).isoformat() for value in values)
    words = [f"{value:g}" if isinstance(value, float) else value for value in values]
    return (feature.separator or " ").join(words)


def _lists(table: pa.Table, features: Any) -> dict[str, list[list[Any]]]:
    return {
        name: [[_decoded(value) for value in values] for values in lists.to_pylist()]
        for name, lists in feature_lists(table, features, np.arange(len(table))).items()
    }


def _decoded(value: Any) -> Any:
    return value.decode("utf-8") if isinstance(value, bytes) else value
