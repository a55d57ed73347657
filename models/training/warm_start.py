"""Warm start: training that begins with the weights of an earlier model.

Each row of an embedding table belongs to an ID or a feature value, and its index changes with every
run of Transform. Exported models contain their weights by name and their vocabularies, so the rows
of two models are matched by their values.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.config import ModelConfig
from models.errors import WarmStartError
from models.features.spec import FeatureSpec
from models.features.vocabularies import read_vocabulary, vocabulary_names
from models.towers.export import MODEL_CONFIG_FILE, WEIGHTS_ATTRIBUTE, named_weights
from models.training.two_tower_model import TwoTowerModel

_KEY = re.compile(rf"{WEIGHTS_ATTRIBUTE}/(.+)/\.ATTRIBUTES/VARIABLE_VALUE")
_FEATURE_TABLE = re.compile(r"(?:query|candidate)_tower:features:tables:(.+):embeddings")


@dataclass(frozen=True)
class SavedWeights:
    """Weights and vocabularies of an exported model.

    Attributes:
        values: Weights by name.
        vocabularies: Values of each vocabulary in the order of their rows, by name.
        config: Architecture of the model.
        source: Folder of the model, for messages.
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
        # Settings that no longer exist are ignored.
        known = {name: value for name, value in saved.items() if name in ModelConfig.model_fields}
        checkpoint = tf.train.load_checkpoint(os.path.join(directory, "variables", "variables"))
        values = {
            match[1]: checkpoint.get_tensor(key)
            for key in checkpoint.get_variable_to_shape_map()
            if (match := _KEY.fullmatch(key))
        }
        vocabularies: dict[str, Sequence[bytes]] = {}
        for name, counted in vocabulary_names(spec).items():
            path = os.path.join(directory, "assets", name)
            if tf.io.gfile.exists(path):
                vocabularies[name] = read_vocabulary(path, counted=counted)
        return cls(values, vocabularies, ModelConfig(**known), directory)


@dataclass(frozen=True)
class RowsOfVocabulary:
    """Numbers of values in both vocabularies, only in the new one and only in the earlier one."""

    kept: int
    new: int
    gone: int


@dataclass(frozen=True)
class WarmStart:
    """Report of a warm start.

    Attributes:
        source: Folder of the earlier model, or None if there was none.
        vocabularies: Numbers of rows by name of the vocabulary.
        fresh: Names of weights that the earlier model lacks.
        dropped: Names of weights that only the earlier model has.
    """

    source: str | None
    vocabularies: Mapping[str, RowsOfVocabulary] = field(default_factory=dict)
    fresh: Sequence[str] = ()
    dropped: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)


def restore(
    model: TwoTowerModel,
    saved: SavedWeights,
    spec: FeatureSpec,
    vocabularies: Mapping[str, Sequence[bytes]],
) -> WarmStart:
    """Copy the saved weights into a built model, matching the rows of tables by their values.

    Rows of new values stay random. Out-of-vocabulary rows and dense layers are copied; the state of
    the optimizer is not. `vocabularies` are those of `model`. On an error, `model` does not change.

    Raises:
        WarmStartError: A weight has another shape or meaning in the earlier model.
    """
    weights = named_weights([model.candidate_tower, model.query_tower])
    _require_compatible(weights, saved, spec, model.config)
    rows = {
        name: _matching_rows(saved.vocabularies[name], values)
        for name, values in vocabularies.items()
        if name in saved.vocabularies
    }
    for name in weights.keys() & saved.values.keys():
        variable, old = weights[name], saved.values[name]
        vocabulary = vocabulary_of(name, spec)
        if vocabulary not in rows:
            variable.assign(old)
            continue
        values = variable.numpy()
        new_rows, old_rows = rows[vocabulary]
        values[new_rows] = old[old_rows]
        values[-1] = old[-1]
        variable.assign(values)
    report = {
        name: RowsOfVocabulary(
            kept=len(kept),
            new=len(vocabularies[name]) - len(kept),
            gone=len(saved.vocabularies[name]) - len(kept),
        )
        for name, (kept, _) in rows.items()
    }
    return WarmStart(
        saved.source,
        report,
        fresh=sorted(weights.keys() - saved.values.keys()),
        dropped=sorted(saved.values.keys() - weights.keys()),
    )


def vocabulary_of(name: str, spec: FeatureSpec) -> str | None:
    """Return the vocabulary that indexes the rows of a named weight, or None for other weights."""
    id_tables = {
        "candidate_tower:ids:embeddings": spec.candidate_id,
        "candidate_tower:biases:embeddings": spec.candidate_id,
        "query_tower:events:embeddings": spec.candidate_id,
        "query_tower:ids:embeddings": spec.query_id,
    }
    if name in id_tables:
        return id_tables[name]
    table = _FEATURE_TABLE.fullmatch(name)
    return table[1] if table and table[1] in vocabulary_names(spec) else None


def _matching_rows(
    old: Sequence[bytes], new: Sequence[bytes]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows of `new` whose values are also in `old`, and their rows in `old`."""
    old_rows = {value: row for row, value in enumerate(old)}
    pairs = [(row, old_rows[value]) for row, value in enumerate(new) if value in old_rows]
    matched = np.array(pairs, np.int64).reshape(-1, 2)
    return matched[:, 0], matched[:, 1]


def _require_compatible(
    weights: Mapping[str, tf.Variable],
    saved: SavedWeights,
    spec: FeatureSpec,
    config: ModelConfig,
) -> None:
    problems = []
    if saved.config.similarity != config.similarity:
        problems.append(
            f"`model.similarity` was {saved.config.similarity} and is {config.similarity}"
        )
    for name, variable in weights.items():
        if name not in saved.values:
            continue
        was, now = saved.values[name].shape, tuple(variable.shape)
        if vocabulary_of(name, spec) in saved.vocabularies:
            was, now = was[1:], now[1:]
        if was != now:
            problems.append(f"{name} was {list(was)} and is {list(now)}")
    if problems:
        raise WarmStartError(
            f"a warm start needs the architecture of the last blessed model ({saved.source}), but "
            f"{'; '.join(problems)}. Change it back, or train once with "
            "`training.warm_start: false`"
        )
