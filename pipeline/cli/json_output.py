"""Results as JSON that every reader takes."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(content: Any) -> str:
    """Returns JSON; a number that is none (NaN, infinite) is null, which JSON has no word for."""
    return json.dumps(_finite(content), allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
