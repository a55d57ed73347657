"""What stands for the rows of a query where those of files have a hash."""

import time

from components.interactions.config import DataConfig
from components.interactions.source_columns import Source
from components.interactions.source_query import query_of


def query_fingerprint(data: DataConfig, source: Source) -> str | None:
    """Returns what stands for a query in cache keys; None: the source is no query.

    A result cannot be hashed before there is one, so with `execute: each_run` no two are equal.
    """
    query = query_of(getattr(data, source) or "")
    if query is None or data.bigquery is None:
        return None
    moment = time.time_ns() if data.bigquery.execute == "each_run" else 0
    return f"{data.bigquery.project}\0{query}\0{moment}"
