"""Begins a fit with the weights of an earlier model, while vocabularies have grown.

A row of a table belongs to an id or a value, and its number changes with every run of Transform.
The exported model holds its weights by name and its vocabularies, so rows are matched by what they
stand for.
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
import tensorflow_transform as tft

from models.features.spec import FeatureSpec
from models.towers.named_weights import named_weights
from models.towers.two_tower import TwoTowerModel
from models.training.config import ModelConfig

# Beside the SavedModel, where TensorFlow Serving does not look.
MODEL_CONFIG_FILE = os.path.join("assets.extra", "model_config.json")
# The attribute of an exported module that holds the weights by name.
WEIGHTS_ATTRIBUTE = "weights"

_KEY = re.compile(rf"{WEIGHTS_ATTRIBUTE}/(.+)/\.ATTRIBUTES/VARIABLE_VALUE")
_FEATURE_TABLE = re.compile(r"(?:query|candidate)_tower:features:tables:(.+):embeddings")


class WarmStartError(Exception):
    """The earlier model cannot be continued with this configuration; again will not help."""


@dataclass(frozen=True)
class SavedWeights:
    """What an exported model remembers.

    Attributes:
        values: Weights by name.
        vocabularies: The values of each vocabulary in the order of their rows, by name.
        config: The settings it was built with.
        source: Where it came from, for messages.
    """

    values: Mapping[str, npt.NDArray[np.float32]]
    vocabularies: Mapping[str, Sequence[bytes]]
    config: ModelConfig
    source: str

    @classmethod
    def read(cls, directory: str, spec: FeatureSpec) -> "SavedWeights":
        """Reads a SavedModel of `models.towers.export`.

        Args:
            directory: Of the SavedModel.
            spec: Ids and features that are of interest; others are left unread.

        Raises:
            WarmStartError: There is none, or it holds no weights by name.
        """
        try:
            with tf.io.gfile.GFile(os.path.join(directory, MODEL_CONFIG_FILE)) as file:
                # Settings that are gone since then do not stand in the way.
                known = {
                    name: value
                    for name, value in json.load(file).items()
                    if name in ModelConfig.model_fields
                }
        except tf.errors.NotFoundError as error:
            raise WarmStartError(
                f"{directory} cannot be continued: it is gone, or was exported before there were "
                "warm starts; fit once with `training.warm_start: false`"
            ) from error
        checkpoint = tf.train.load_checkpoint(os.path.join(directory, "variables", "variables"))
        values = {
            found[1]: checkpoint.get_tensor(key)
            for key in checkpoint.get_variable_to_shape_map()
            if (found := _KEY.fullmatch(key))
        }
        vocabularies: dict[str, Sequence[bytes]] = {}
        for name, counted in _vocabulary_names(spec).items():
            path = os.path.join(directory, "assets", name)
            if tf.io.gfile.exists(path):
                vocabularies[name] = read_vocabulary(path, counted=counted)
        return cls(values, vocabularies, ModelConfig(**known), directory)


@dataclass(frozen=True)
class RowsOfVocabulary:
    """How many values of a vocabulary kept their rows, are new, and are gone."""

    kept: int
    new: int
    gone: int


@dataclass(frozen=True)
class WarmStart:
    """What came of a warm start.

    Attributes:
        source: The model that was continued; None where there was none.
        vocabularies: By name.
        fresh: Names of weights that the earlier model lacks.
        dropped: Names of its weights that this model lacks.
    """

    source: str | None
    vocabularies: Mapping[str, RowsOfVocabulary] = field(default_factory=dict)
    fresh: Sequence[str] = ()
    dropped: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def restore(
    model: TwoTowerModel,
    saved: SavedWeights,
    spec: FeatureSpec,
    vocabularies: Mapping[str, Sequence[bytes]],
) -> WarmStart:
    """Puts the saved weights into a model that is built, row by row where rows have a meaning.

    New values keep their fresh rows. The row of unknown values, the last one, is taken over. Dense
    layers are taken over whole. The optimiser begins anew.

    Args:
        model: Gets the weights; unchanged where this fails.
        saved: Of the earlier model.
        spec: Ids and features.
        vocabularies: Of `model`, by name.

    Raises:
        WarmStartError: A weight has another shape, or means something else, in the two models.
    """
    weights = named_weights([model.candidate_tower, model.query_tower])
    _check(weights, saved, spec, model.config)
    rows = {
        name: _matched(saved.vocabularies[name], values)
        for name, values in vocabularies.items()
        if name in saved.vocabularies
    }
    for name, variable in weights.items():
        if name not in saved.values:
            continue
        old = saved.values[name]
        vocabulary = vocabulary_of(name, spec)
        if vocabulary not in rows:
            variable.assign(old)
            continue
        values = variable.numpy()
        new_rows, old_rows = rows[vocabulary]
        values[new_rows] = old[old_rows]
        values[-1] = old[-1]
        variable.assign(values)
    return WarmStart(
        saved.source,
        {
            name: RowsOfVocabulary(
                kept=len(kept),
                new=len(vocabularies[name]) - len(kept),
                gone=len(saved.vocabularies[name]) - len(kept),
            )
            for name, (kept, _) in rows.items()
        },
        fresh=sorted(weights.keys() - saved.values.keys()),
        dropped=sorted(saved.values.keys() - weights.keys()),
    )


def write_model_config(config: ModelConfig, directory: str) -> None:
    """Leaves the settings of the towers beside an exported SavedModel."""
    path = os.path.join(directory, MODEL_CONFIG_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(config.model_dump_json())


def read_vocabularies(
    transform: tft.TFTransformOutput, spec: FeatureSpec
) -> dict[str, Sequence[bytes]]:
    """Returns the vocabularies that Transform made, in the order of their rows."""
    found: dict[str, Sequence[bytes]] = {}
    for name, counted in _vocabulary_names(spec).items():
        path = transform.vocabulary_file_by_name(name)
        if path is not None:
            found[name] = read_vocabulary(path, counted=counted)
    return found


def read_vocabulary(path: str, *, counted: bool) -> list[bytes]:
    """Reads a vocabulary of Transform; in a `counted` one, each line begins with a count."""
    with tf.io.gfile.GFile(path, "rb") as file:
        lines: list[bytes] = file.read().split(b"\n")
    # The last line ends too; splitting at all that Python takes for a line's end would be wrong.
    lines.pop()
    return [line.partition(b" ")[2] for line in lines] if counted else lines


def vocabulary_of(name: str, spec: FeatureSpec) -> str | None:
    """Returns the vocabulary whose values the rows of a weight stand for; None for other weights.

    Args:
        name: Of `models.towers.named_weights`.
        spec: Ids and features.
    """
    of_ids = {
        "candidate_tower:ids:embeddings": spec.candidate_id,
        "candidate_tower:biases:embeddings": spec.candidate_id,
        "query_tower:events:embeddings": spec.candidate_id,
        "query_tower:ids:embeddings": spec.query_id,
    }
    if name in of_ids:
        return of_ids[name]
    table = _FEATURE_TABLE.fullmatch(name)
    return table[1] if table and table[1] in _vocabulary_names(spec) else None


def _vocabulary_names(spec: FeatureSpec) -> dict[str, bool]:
    """The vocabularies, and whether their lines begin with counts; see `preprocessing`."""
    features = {**spec.query_features, **spec.candidate_features}
    return {
        spec.candidate_id: True,
        spec.query_id: True,
        **{name: False for name, feature in features.items() if feature.kind != "numeric"},
    }


def _matched(
    old: Sequence[bytes], new: Sequence[bytes]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows in the new table whose values the old one has, and their rows there."""
    places = {value: place for place, value in enumerate(old)}
    pairs = [(row, places[value]) for row, value in enumerate(new) if value in places]
    matched = np.array(pairs, np.int64).reshape(-1, 2)
    return matched[:, 0], matched[:, 1]


def _check(
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
        vocabulary = vocabulary_of(name, spec)
        if vocabulary in saved.vocabularies:
            was, now = was[1:], now[1:]
        if was != now:
            problems.append(f"{name} was {list(was)} and is {list(now)}")
    if problems:
        raise WarmStartError(
            f"the last blessed model ({saved.source}) cannot be continued with this "
            f"configuration: {'; '.join(problems)}. Change it back, or fit from nothing once with "
            "`training.warm_start: false`"
        )
