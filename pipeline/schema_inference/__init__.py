"""Inference of a schema from the data of a project, and comparison of the two.

The limit is defined here because the command shows it, and the modules below are slow to import.
"""

# Limit per input; reading this many rows takes about ten seconds.
DEFAULT_MAX_ROWS = 5_000_000
