"""Warm start: training that begins with the weights of an earlier model.

Each row of an embedding table belongs to an ID or a feature value, and its index changes with every
run of Transform. Exported models contain their weights by name and their vocabularies, so the rows
of two models are matched by their values.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.config import ModelConfig
from models.errors import WarmStartError
from models.features.spec import FeatureSpec
from models.features.vocabularies import read_vocabularies, vocabulary_names
from models.towers.export import MODEL_CONFIG_FILE, WEIGHTS_ATTRIBUTE, named_weights
from models.training.two_tower_model import TwoTowerModel

_KEY = re.compile(rf"{WEIGHTS_ATTRIBUTE}/(.+)/\.ATTRIBUTES/VARIABLE_VALUE")


@dataclass(frozen=True)
class SavedWeights:
    """Weights and vocabularies of the exported model in the folder `source`.

    `values` are the weights by name, and `vocabularies` the values of each vocabulary, by name, in
    the order of their rows.
    """

    values: Mapping[str, npt.NDArray[np.float32]]
    vocabularies: Mapping[str, Sequence[bytes]]
    config: ModelConfig
    source: str

    @classmethod
    def read(cls, directory: str, spec: FeatureSpec) -> "SavedWeights":
        """Read the SavedModel in `directory`, with the vocabularies of `spec`.

        Raises:
            WarmStartError: The model is missing or was exported without weights by name.
        """
        try:
            with tf.io.gfile.GFile(os.path.join(directory, MODEL_CONFIG_FILE)) as file:
                saved = json.load(file)
        except tf.errors.NotFoundError as error:
            raise WarmStartError(
                f"a warm start needs {MODEL_CONFIG_FILE} of the earlier model, but {directory} has "
                "none: the model was deleted, or was exported by a version without warm starts; "
                "train once with `training.warm_start: false`"
            ) from error
        checkpoint = tf.train.load_checkpoint(os.path.join(directory, "variables", "variables"))
        values = {
            match[1]: checkpoint.get_tensor(key)
            for key in checkpoint.get_variable_to_shape_map()
            if (match := _KEY.fullmatch(key))
        }
        # Settings that no longer exist are ignored, and so is that a value may no longer exist.
        known = {name: value for name, value in saved.items() if name in ModelConfig.model_fields}
        config = ModelConfig.model_construct(**known)
        return cls(values, read_vocabularies(directory, spec), config, directory)


def restore(
    model: TwoTowerModel, saved: SavedWeights, vocabularies: Mapping[str, Sequence[bytes]]
) -> dict[str, Any]:
    """Copy the saved weights into a built model, matching the rows of tables by their values.

    Rows of new values stay random. Out-of-vocabulary rows and dense layers are copied; the state of
    the optimizer is not. `vocabularies` are those of `model`. On an error, `model` does not change.

    Returns:
        A report: `source` is the folder of the earlier model, `vocabularies` contains the numbers
        of `kept`, `new` and `gone` values by vocabulary, `fresh` the names of weights that the
        earlier model lacks, and `dropped` those that only the earlier model has.

    Raises:
        WarmStartError: A weight has another shape or meaning in the earlier model.
    """
    weights = named_weights([model.candidate_tower, model.query_tower])
    _require_compatible(weights, saved, model)
    rows = {
        name: matching_rows(saved.vocabularies[name], values)
        for name, values in vocabularies.items()
        if name in saved.vocabularies
    }
    for name in weights.keys() & saved.values.keys():
        variable, old = weights[name], saved.values[name]
        vocabulary = vocabulary_of(name, model.spec)
        if vocabulary not in rows:
            variable.assign(old)
            continue
        copy_rows(variable, old, rows[vocabulary])
    return {
        "source": saved.source,
        "vocabularies": {
            name: {
                "kept": len(kept),
                "new": len(vocabularies[name]) - len(kept),
                "gone": len(saved.vocabularies[name]) - len(kept),
            }
            for name, (kept, _) in rows.items()
        },
        "fresh": sorted(weights.keys() - saved.values.keys()),
        "dropped": sorted(saved.values.keys() - weights.keys()),
    }


def vocabulary_of(name: str, spec: FeatureSpec) -> str | None:
    """Return the vocabulary that indexes the rows of a named weight, or None for other weights."""
    tables = {
        "candidate_tower:ids:embeddings": spec.candidate_id,
        "candidate_tower:biases:embeddings": spec.candidate_id,
        "query_tower:events:embeddings": spec.candidate_id,
        "query_tower:ids:embeddings": spec.query_id,
    }
    for feature in vocabulary_names(spec):
        for encoder in (
            "candidate_tower:features",
            "query_tower:features",
            "query_tower:event_features",
        ):
            tables[f"{encoder}:tables:{feature}:embeddings"] = feature
    return tables.get(name)


def matching_rows(old: Sequence[bytes], new: Sequence[bytes]) -> tuple[npt.NDArray[np.intp], ...]:
    """Return the rows of `new` whose values are also in `old`, and their rows in `old`."""
    values, old_values = np.array(new, np.object_), np.array(old, np.object_)
    return np.intersect1d(values, old_values, assume_unique=True, return_indices=True)[1:]


def copy_rows(
    table: tf.Variable, old: npt.NDArray[np.float32], rows: tuple[npt.NDArray[np.intp], ...]
) -> None:
    """Copy the `matching_rows` and the out-of-vocabulary row, the last one, from an old table."""
    values, (new_rows, old_rows) = table.numpy(), rows
    values[new_rows] = old[old_rows]
    values[-1] = old[-1]
    table.assign(values)


def _require_compatible(
    weights: Mapping[str, tf.Variable], saved: SavedWeights, model: TwoTowerModel
) -> None:
    problems = []
    was, now = saved.config.similarity, model.config.similarity
    if was != now:
        problems.append(f"`model.similarity` was {was} and is {now}")
    for name, variable in weights.items():
        if name not in saved.values:
            continue
        old, new = saved.values[name].shape, tuple(variable.shape)
        if vocabulary_of(name, model.spec) in saved.vocabularies:
            old, new = old[1:], new[1:]
        if old != new:
            problems.append(f"{name} was {list(old)} and is {list(new)}")
    if problems:
        raise WarmStartError(
            f"a warm start needs the architecture of the last blessed model ({saved.source}), but "
            f"{'; '.join(problems)}. Change it back, or train once with "
            "`training.warm_start: false`"
        )
