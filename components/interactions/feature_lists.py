"""Features as lists, one list a row: what Examples hold, where a missing value is no value."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.features.spec import FeatureConfig


def feature_lists(
    rows: pa.Table | None, features: Mapping[str, FeatureConfig], places: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Returns the lists of each feature for chosen rows.

    Args:
        rows: With a column of strings or float32 for each feature; None: no row has features.
        features: The declaration by name.
        places: Of the rows wanted; negative: a row without features [n].

    Returns:
        Arrays of lists without nulls by feature name [n].
    """
    return {
        name: empty_lists(value_type(feature), len(places))
        if rows is None
        else _take(_lists(rows[name].combine_chunks(), feature), places)
        for name, feature in features.items()
    }


def value_type(feature: FeatureConfig) -> Any:
    """Returns the Arrow type of a feature's values in Examples."""
    return pa.float32() if feature.kind == "numeric" else pa.binary()


def empty_lists(kind: Any, count: int) -> Any:
    """Returns empty lists of a value type."""
    return pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), pa.array([], kind))


def single_lists(values: Any) -> Any:
    """Returns lists of one value each."""
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1, dtype=np.int32)), values)


def _lists(column: Any, feature: FeatureConfig) -> Any:
    if feature.separator is not None:
        parts = pc.split_pattern(column.fill_null(""), feature.separator)
        values = pc.utf8_trim_whitespace(parts.flatten())
        present = _flags(pc.greater(pc.binary_length(values), 0))
        bounds = np.concatenate(([0], np.cumsum(present)))[parts.offsets.to_numpy()]
    else:
        values = column
        present = _flags(pc.is_valid(values))
        if feature.kind != "numeric":
            present &= _flags(pc.greater(pc.binary_length(values), 0).fill_null(False))
        bounds = np.concatenate(([0], np.cumsum(present)))
    kept = values.filter(pa.array(present)).cast(value_type(feature))
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), kept)


def _take(lists: Any, places: npt.NDArray[np.int64]) -> Any:
    taken = lists.take(pa.array(places, mask=places < 0))
    lengths = pc.list_value_length(taken).fill_null(0).to_numpy(zero_copy_only=False)
    bounds = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(bounds), taken.flatten())


def _flags(array: Any) -> npt.NDArray[np.bool_]:
    flags: npt.NDArray[np.bool_] = array.to_numpy(zero_copy_only=False)
    return flags.copy()
