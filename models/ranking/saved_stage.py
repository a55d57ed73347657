"""The ranking stage in the folder of the exported towers."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.features.preprocessing import SPACE_IN_ID
from models.features.spec import FeatureSpec
from models.features.vocabularies import read_vocabulary
from models.ranking.config import ARCHITECTURE, RankingConfig
from models.ranking.estimates import Estimates
from models.ranking.features import VectorsAt
from models.ranking.stage import RankingStage
from models.ranking.tables import RankingTables, load_arrays, save_arrays
from models.ranking.tasks import Task, TaskFeatures
from models.settings import Settings
from models.towers.saved_towers import SavedTowers

if TYPE_CHECKING:  # it takes a second to import
    from models.ranking.ranker import Ranker

# TensorFlow Serving ignores it.
_FOLDER = os.path.join("assets.extra", "ranking")
_SETTINGS_FILE, _TABLES_FILE, _RANKER_FILE = "ranking.json", "tables.npz", "ranker.npz"
_ESTIMATES_FILE = "estimates_of_{}.npz"


class StageSettings(Settings):
    """Settings of a trained ranking stage.

    Attributes:
        model, cross_layers, hidden_layers, embedding_dimension: See `RankingConfig`.
        num_candidates: Number of candidates of the retriever.
        exclude_seen: Whether the history's candidates are never recommended. If not, they are
            ranked too, even if the retriever does not find them.
        successors: See `RankingConfig`.
        features: Names of the computed features that the ranker was trained with.
        tasks: The tasks beside the next event.
        declared: Sizes of the tables of the declared features that it embeds; 0 for numbers.
    """

    model: Literal["dcn", "linear"]
    cross_layers: int = 2
    hidden_layers: tuple[int, ...] = (64, 32)
    embedding_dimension: int = 4
    num_candidates: int
    exclude_seen: bool
    successors: int = 0
    features: tuple[str, ...]
    declared: Mapping[str, int] = {}
    tasks: tuple[Task, ...] = ()

    @property
    def architecture(self) -> RankingConfig:
        """The architecture of the ranker, with the defaults of all other settings."""
        return RankingConfig(**self.model_dump(include=ARCHITECTURE))


def save_stage(
    directory: str,
    settings: StageSettings,
    tables: RankingTables,
    estimates: Mapping[str, Estimates],
    ranker: "Ranker",
) -> None:
    """Add a ranking stage to exported towers, with tables in the order of the vocabulary."""
    folder = os.path.join(directory, _FOLDER)
    tf.io.gfile.makedirs(folder)
    tables.save(os.path.join(folder, _TABLES_FILE))
    for name, estimate in estimates.items():
        save_arrays(os.path.join(folder, _ESTIMATES_FILE.format(name)), vars(estimate))
    weights = {f"{number:02d}": of for number, of in enumerate(ranker.get_weights())}
    save_arrays(os.path.join(folder, _RANKER_FILE), weights)
    with tf.io.gfile.GFile(os.path.join(folder, _SETTINGS_FILE), "w") as file:
        file.write(settings.model_dump_json())


def read_settings(directory: str) -> StageSettings | None:
    """Return the settings of the ranking stage of exported towers; None if they have none."""
    path = os.path.join(directory, _FOLDER, _SETTINGS_FILE)
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path) as file:
        return StageSettings.model_validate(json.loads(file.read()))


def load_ranker(directory: str, settings: StageSettings, spec: FeatureSpec) -> "Ranker":
    """Return the ranker of exported towers, whose settings are given."""
    # Imported here, because projects without a ranking stage only read its settings.
    from models.ranking.ranker import Ranker

    ranker = Ranker(
        settings.architecture, settings.features, spec.features, settings.declared, settings.tasks
    )
    weights = load_arrays(os.path.join(directory, _FOLDER, _RANKER_FILE))
    ranker.set_weights([weights[name] for name in sorted(weights)])
    return ranker


def load_stage(
    towers: SavedTowers,
    spec: FeatureSpec,
    ids: Sequence[bytes],
    catalogue: Iterable[Mapping[str, tf.Tensor]],
    vectors_at: VectorsAt,
) -> RankingStage:
    """Return the ranking stage of exported towers for a catalogue.

    `ids` are the catalogue's candidate IDs. Those that were not known
    in training have no counts. `catalogue` yields batches of the candidates as raw inputs.
    """
    directory = towers.directory
    settings = read_settings(directory)
    if settings is None:
        raise ValueError(f"{directory} must have a ranking stage, but has no {_SETTINGS_FILE}")
    folder = os.path.join(directory, _FOLDER)
    vocabulary = os.path.join(directory, tf.saved_model.ASSETS_DIRECTORY, spec.candidate_id)
    tables = RankingTables.load(os.path.join(folder, _TABLES_FILE))
    rows = _rows_of(read_vocabulary(vocabulary, counted=True), ids)
    tables = tables.reordered(rows)
    task_features = None
    if settings.tasks:
        estimates = {}
        for task in settings.tasks:
            arrays = load_arrays(os.path.join(folder, _ESTIMATES_FILE.format(task.name)))
            estimates[task.name] = Estimates(**arrays).reordered(rows)
        task_features = TaskFeatures(settings.tasks, estimates, spec.query_id)
    ranker = load_ranker(directory, settings, spec)
    vectors = None
    if ranker.of_candidates.names:
        parts = [ranker.of_candidates(towers.transform_candidates(raw)) for raw in catalogue]
        vectors = np.concatenate([np.concatenate(part, axis=1) for part in parts])
    stage = RankingStage(
        tables,
        vectors_at,
        exclude_seen=settings.exclude_seen,
        successors=settings.successors,
        task_features=task_features,
        ranker=ranker,
        candidate_vectors=vectors,
    )
    if stage.names != settings.features:
        raise ValueError(
            f"the ranker in {directory} was trained with the features "
            f"{', '.join(settings.features)}, but this version computes "
            f"{', '.join(stage.names)}; train it again"
        )
    return stage


def _rows_of(vocabulary: Sequence[bytes], ids: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Return the index in the vocabulary of each ID, -1 if it is unknown."""
    index_of = {name: index for index, name in enumerate(vocabulary)}
    space = SPACE_IN_ID.encode()
    return np.array([index_of.get(name.replace(b" ", space), -1) for name in ids], np.int64)
