"""Infer a schema from the data of a project, and compare a schema with the data.

`DEFAULT_MAX_ROWS` is defined here because `--help` shows it, and the modules are slow to import.
"""

# Limit per input; reading this many rows takes about ten seconds.
DEFAULT_MAX_ROWS = 5_000_000
