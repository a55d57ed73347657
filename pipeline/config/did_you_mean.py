"""Spelling suggestions for error messages."""

import difflib
from collections.abc import Sequence


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return a suffix that suggests the most similar word in `known`, or "" if none is similar."""
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean `{nearest[0]}`?" if nearest else ""
