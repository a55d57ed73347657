"""Lookup of histories and features in the input files, for requests to a served model.

The lookup reads the files with the readers of ingestion, so a history equals the query's timeline.
"""

from collections.abc import Iterator, Sequence
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
    spec, data = config.spec, config.data
    names = {HISTORY_KEY: spec.candidate_id}
    if spec.columns.event_types:
        names[HISTORY_TYPES_KEY] = EVENT_TYPE_KEY
    found = list(_rows(config, "interactions", spec.query_id, [query_id]))
    if not found:
        return {key: [] for key in names}
    events = pa.concat_tables(found).sort_by([(key, "ascending") for key in (FILE, LINE)])
    keys = spec.query_id, spec.candidate_id
    drops = data.duplicate_events == "drop"
    events, _ = order_events(events, *keys, drop_duplicates=drops)
    if data.collapse_within_s is not None:
        events, _ = collapse_funnels(events, *keys, data.type_order, data.collapse_within_s)
    return {key: events[name].cast(pa.string()).to_pylist() for key, name in names.items()}


def query_features(config: PipelineConfig, query_id: str) -> dict[str, Any]:
    """Return a query's features as model inputs; empty if the query is unknown.

    The result is empty if they are in a BigQuery query, because running it costs money.

    Raises:
        IngestError: A file is missing or unreadable.
    """
    spec = config.spec
    if config.data.queries is None or not spec.query_features or "queries" in config.data.queried:
        return {}
    for table in _rows(config, "queries", spec.query_id, [query_id]):
        lists = _lists(table.slice(0, 1), spec.query_features)
        return {
            name: values[0] if spec.query_features[name].is_list else values[0][0]
            for name, values in lists.items()
            if values[0]
        }
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
    for table in _rows(config, "candidates", spec.candidate_id, candidate_ids):
        lists = _lists(table, features)
        for row, candidate_id in enumerate(table[spec.candidate_id].to_pylist()):
            described.setdefault(
                candidate_id,
                {name: _text(values[row], features[name]) for name, values in lists.items()},
            )
    return described


def _rows(
    config: PipelineConfig, source: Source, key: str, ids: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield blocks of the valid rows whose column `key` contains one of `ids`."""
    ingest = config.ingestion
    # Missing spans can stop a run, but must not prevent a lookup.
    spans = ingest.data.spans.model_copy(update={"missing": "warn"})
    data = ingest.data.model_copy(update={"spans": spans})
    ingest = ingest.model_copy(update={"data": data})
    wanted = pa.array(list(ids), pa.string())
    for file in find_files(ingest, [source]):
        if not file.header:
            continue
        for good, _ in read_rows(ingest, file):
            if source == "interactions":
                good = rated_high_enough(good, ingest.data.min_rating)
            found = good.filter(pc.is_in(good[key].cast(pa.string()), value_set=wanted))
            if len(found):
                yield found


def _lists(table: pa.Table, features: Any) -> dict[str, list[list[Any]]]:
    return {
        name: [[_decoded(value) for value in values] for values in lists.to_pylist()]
        for name, lists in feature_lists(table, features, np.arange(len(table))).items()
    }


def _decoded(value: Any) -> Any:
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _text(values: Sequence[Any], feature: FeatureConfig) -> str:
    if feature.kind == "vector":
        return f"{len(values)} numbers"
    words = [f"{value:g}" if isinstance(value, float) else value for value in values]
    return (feature.separator or " ").join(words)
