"""Reader of the model server's request log: the candidates that each query was shown."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.errors import RequestLogError, reason_of

_SIGNATURES = frozenset({"", "serving_default", "recommend_excluding"})
# One row for each query of each request, with its first k candidates.
_SCHEMA: dict[str, Any] = {
    "version": pl.Int64,
    "label": pl.String,
    "query": pl.String,
    "time": pl.Datetime("us", "UTC"),
    "candidates": pl.List(pl.String),
}


def read_exposures(path: Path, query_id: str, k: int) -> pl.DataFrame:
    """Read the answers of a request log, whose queries have an ID.

    Args:
        path: A file of the log, or a folder with all of them.
        query_id: The name of the input with the ID.
        k: Number of candidates that were shown, of those in each answer.

    Returns:
        The columns `version`, `label`, `query`, `time` and `candidates`, a list of at most `k`.

    Raises:
        RequestLogError: A file cannot be read, or no answer has a query ID.
    """
    files = sorted(path.glob("*.jsonl*")) if path.is_dir() else [path]
    rows = [row for file in files for row in _rows(file, query_id, k)]
    if not rows:
        raise RequestLogError(
            f"{path} must have answers to requests with a query ID (input `{query_id}`), as the "
            "server writes with --request_log_folder, but has none"
        )
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _rows(file: Path, query_id: str, k: int) -> Iterator[tuple[Any, ...]]:
    number = 0
    try:
        with file.open("rb") as lines:
            for line in lines:
                number += 1
                yield from _answers(json.loads(line), query_id, k)
    except OSError as error:
        raise RequestLogError(f"{file} cannot be read: {reason_of(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestLogError(
            f"{file}:{number} must be a line of the server's request log, but is not: {error!r}"
        ) from error


def _answers(entry: Mapping[str, Any], query_id: str, k: int) -> Iterator[tuple[Any, ...]]:
    if entry["signature_name"] not in _SIGNATURES:
        return
    time = datetime.fromisoformat(entry["time"].replace("Z", "+00:00"))
    ids = entry["inputs"].get(query_id, [])
    for id_, candidates in zip(ids, entry["candidate_ids"], strict=bool(ids)):
        if id_:
            yield entry["version"], entry["label"], id_, time, candidates[:k]
