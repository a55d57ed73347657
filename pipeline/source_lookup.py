"""What the source files say about one query or some candidates: what a client knows and sends."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from components.timeline_example_gen.errors import IngestError
from components.timeline_example_gen.file_format import format_of
from models.features import FeatureConfig
from pipeline.config import ConfigError, PipelineConfig


def query_history(config: PipelineConfig, query_id: str) -> list[str]:
    """Returns the candidate ids of all events of a query, oldest first; none if unknown."""
    columns = config.columns
    source = config.data.interactions
    events = _scan(config, source).filter(pl.col(columns.query_id) == query_id)
    if columns.timestamp is not None:
        time = pl.col(columns.timestamp)
        if config.data.timestamp_unit != "iso8601":
            time = time.cast(pl.Float64, strict=False)
        events = events.sort(time, maintain_order=True)
    rows = _collect(config, source, events.select(columns.candidate_id))
    return [row[columns.candidate_id] for row in rows if row[columns.candidate_id]]


def query_features(config: PipelineConfig, query_id: str) -> dict[str, Any]:
    """Returns the features of a query as the served model takes them; none if unknown."""
    if config.data.queries is None or not config.features.query:
        return {}
    source = config.data.queries
    matching = _scan(config, source).filter(pl.col(config.columns.query_id) == query_id)
    rows = _collect(config, source, matching.head(1))
    if not rows:
        return {}
    values = {
        name: _value(rows[0].get(feature.column or name), feature)
        for name, feature in config.features.query.items()
    }
    return {name: value for name, value in values.items() if value is not None}


def describe_candidates(
    config: PipelineConfig, candidate_ids: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Returns, by candidate id, the catalogue's features as text, for a person to read."""
    if config.data.candidates is None:
        return {}
    id_column = config.columns.candidate_id
    columns = {name: feature.column or name for name, feature in config.features.candidate.items()}
    source = config.data.candidates
    matching = _scan(config, source).filter(pl.col(id_column).is_in(list(candidate_ids)))
    rows = _collect(config, source, matching)
    return {
        row[id_column]: {name: row.get(column) or "" for name, column in columns.items()}
        for row in rows
    }


def _scan(config: PipelineConfig, source: str) -> pl.LazyFrame:
    """All columns as text: an id stays as it is written."""
    path = config.resolve(source)
    try:
        is_parquet = format_of(config.data, path) == "parquet"
    except IngestError as error:
        raise ConfigError(str(error)) from error
    if is_parquet:
        return pl.scan_parquet(path).select(pl.all().cast(pl.String))
    return pl.scan_csv(path, separator=config.data.delimiter, infer_schema=False)


def _collect(config: PipelineConfig, source: str, rows: pl.LazyFrame) -> list[dict[str, Any]]:
    try:
        return rows.collect().to_dicts()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"{config.resolve(source)} cannot be read: {error}") from error


def _value(text: str | None, feature: FeatureConfig) -> Any:
    if not text:
        return None
    if feature.kind == "numeric":
        try:
            return float(text)
        except ValueError:
            return None
    if feature.separator is not None:
        return [part.strip() for part in text.split(feature.separator) if part.strip()]
    return text
