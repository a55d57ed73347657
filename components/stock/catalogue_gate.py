"""The catalogue gate: compares the candidates of a new model with those in service before a push.

A truncated catalogue, or one that spells its IDs in another way, passes all other gates, because
they only look at the new model.
"""

import base64
import os
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components import files
from components.errors import CatalogueRefusedError
from components.index_builder.catalogue_files import IDS_FILE

_SHOWN = 3
_OVERRIDE = "--set candidates.max_removed=1"


def check_candidates(model_path: str, served_path: str, max_removed: float) -> None:
    """Compare the candidate IDs of two retrieval SavedModels; do nothing if `max_removed` is 1.

    Raises:
        CatalogueRefusedError: The new model lacks a larger share of the served candidates than
            `max_removed`, or the candidates of one of the models cannot be read.
    """
    if max_removed >= 1:
        return
    served, new = _read_ids(served_path), _read_ids(model_path)
    removed, added = _difference(served, new), _difference(new, served)
    share = len(removed) / len(served)
    if share > max_removed:
        raise CatalogueRefusedError(
            f"the catalogue gate refused the push: at most {max_removed:.0%} of the candidates in "
            f"service may vanish (candidates.max_removed), but {len(removed):,} of "
            f"{len(served):,} ({share:.1%}) would: {_show(removed)}\n"
            f"Of the {len(new):,} candidates in the new catalogue, {len(added):,} are not in "
            f"service yet: {_show(added)}\n"
            f"The version in service is {served_path}\n"
            "To change this: check that the catalogue is complete and spells its IDs as before. If "
            f"the change is intended, accept it once with {_OVERRIDE} (and --push in a run)."
        )


def _read_ids(model_path: str) -> Any:
    """Return the IDs as Arrow binary values in base64, which need less memory than objects."""
    path = os.path.join(model_path, "assets", IDS_FILE)
    try:
        content = pa.array([files.read_bytes(path)], pa.large_binary())
    except Exception as error:  # Every file system has errors of its own.
        reason = f"{type(error).__name__}: {error}"
    else:
        lines = pc.list_flatten(pc.split_pattern(content, b"\n"))
        if len(lines) > 1:
            return lines[:-1]  # the file ends with a line end
        reason = "the file is empty"
    raise CatalogueRefusedError(
        "the catalogue gate refused the push: the candidates of the new model are compared with "
        f"those in service (candidates.max_removed), but {path} cannot be read: {reason}\n"
        f"To change this: restore the file, or push without the comparison: {_OVERRIDE} (and "
        "--push in a run)."
    )


def _difference(ids: Any, others: Any) -> Any:
    return ids.filter(pc.invert(pc.is_in(ids, value_set=others)))


def _show(ids: Any) -> str:
    shown = [
        repr(base64.urlsafe_b64decode(line + b"==").decode(errors="backslashreplace"))
        for line in ids[:_SHOWN].to_pylist()
    ]
    return ", ".join([*shown, *(["…"] if len(ids) > _SHOWN else [])]) or "none"
