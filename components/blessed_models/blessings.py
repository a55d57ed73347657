"""Asks an artifact for its blessing, and says in words why there is none."""

import os

from tfx import types
from tfx.components.util import model_utils
from tfx.dsl.io import fileio
from tfx.utils import io_utils

_NO_FILES = ("NOT_BLESSED", "INFRA_NOT_BLESSED")


class NotBlessedError(Exception):
    """A gate refused; another model or other data may pass, running again will not help."""


def require_model_blessing(blessing: types.Artifact) -> None:
    """Raises NotBlessedError unless the evaluation blessed the model."""
    if not model_utils.is_model_blessed(blessing):
        raise NotBlessedError(f"the evaluation gate refused the model: {_reasons(blessing)}")


def require_infra_blessing(blessing: types.Artifact) -> None:
    """Raises NotBlessedError unless the model server answered rightly."""
    if not model_utils.is_infra_validated(blessing):
        raise NotBlessedError(f"the serving gate refused the model: {_reasons(blessing)}")


def _reasons(blessing: types.Artifact) -> str:
    for name in _NO_FILES:
        path = os.path.join(blessing.uri, name)
        if fileio.exists(path):
            return "; ".join(io_utils.read_string_file(path).strip().splitlines())
    return f"{blessing.uri} holds no blessing"
