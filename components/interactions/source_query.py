"""Patterns that are no files but a BigQuery query: `bigquery: SELECT …`."""

import re

_PREFIX = re.compile(r"bigquery:(?!//)\s*", re.IGNORECASE)


def query_of(pattern: str) -> str | None:
    """Returns the query in a pattern of `data`; None: it names files."""
    match = _PREFIX.match(pattern)
    return None if match is None else pattern[match.end() :].strip()
