"""The ranking stage: from what the retriever found to candidates in the order of the ranker.

Training, evaluation and serving all use this class, so they see the same candidates and features.
"""

import json
import os
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from models.features.preprocessing import SPACE_IN_ID
from models.features.spec import FeatureSpec
from models.features.vocabularies import read_vocabulary
from models.ranking.features import (
    NUM_RECENT,
    RankingFeatures,
    Retrieved,
    VectorsAt,
    newest_first,
)
from models.ranking.tables import RankingTables, load_arrays, save_arrays
from models.settings import Settings

# The score of a missing candidate.
NO_SCORE = tf.float32.min

# In a folder of the exported towers that TensorFlow Serving ignores.
_FOLDER = os.path.join("assets.extra", "ranking")
# Whether column j of `newest_first` is a newer event than column i.
_IS_NEWER = np.tri(NUM_RECENT, k=-1, dtype=bool)
_SETTINGS_FILE, _TABLES_FILE, _RANKER_FILE = "ranking.json", "tables.npz", "ranker.npz"


class StageSettings(Settings):
    """Settings of a trained ranking stage.

    Attributes:
        model: `RankingConfig.model`.
        num_candidates: Number of candidates of the retriever.
        exclude_seen: Whether the history's candidates are never recommended. If not, they are
            ranked too, even if the retriever does not find them.
        features: Names of the features that the ranker was trained with.
    """

    model: str
    num_candidates: int
    exclude_seen: bool
    features: tuple[str, ...]


class RankingStage(tf.Module):
    """Ranks candidates for queries.

    Candidates are indices of a catalogue, or of the vocabulary during training.

    Args:
        tables: Tables with the same indices.
        vectors_at: Function that returns the vectors of candidates.
        exclude_seen: See `StageSettings`.
        ranker: The trained model; None while it is being trained.
    """

    def __init__(
        self,
        tables: RankingTables,
        vectors_at: VectorsAt,
        *,
        exclude_seen: bool,
        ranker: tf_keras.Model | None = None,
    ) -> None:
        super().__init__()
        self.exclude_seen = exclude_seen
        self.features = RankingFeatures(tables, vectors_at, repeats=not exclude_seen)
        self._vectors_at = vectors_at
        if ranker is not None:
            # A Keras model must not be an attribute, because it would be saved with its own calls.
            self._weights = ranker.variables
            self._score: Callable[[tf.Tensor], tf.Tensor] = lambda features: ranker(features)

    def candidates(
        self, queries: tf.Tensor, recent: tf.Tensor, found: tf.Tensor, scores: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the candidates to rank and their scores by the retriever, both `[batch, n]`.

        Without `exclude_seen`, these are the retriever's and, behind them, the history's. Missing
        candidates and repeated ones have the score `NO_SCORE`.

        Args:
            queries: Query vectors `[batch, dimension]`.
            recent: Candidates of the newest events (`newest_first`).
            found: Candidates of the retriever `[batch, m]`.
            scores: Their scores by the retriever, best first.
        """
        if self.exclude_seen:
            return found, scores
        own = tf.maximum(recent, 0)
        own_scores = tf.linalg.matvec(self._vectors_at(own), queries)
        ascending = tf.sort(tf.where(scores > NO_SCORE, found, -1), axis=1)
        index = tf.minimum(tf.searchsorted(ascending, own), tf.shape(ascending)[1] - 1)
        is_found = tf.gather(ascending, index, batch_dims=1) == own
        is_repeated = tf.reduce_any((own[:, :, None] == own[:, None, :]) & _IS_NEWER, axis=2)
        is_new = (recent >= 0) & ~is_found & ~is_repeated
        own_scores = tf.where(is_new, own_scores, NO_SCORE)
        return tf.concat([found, own], axis=1), tf.concat([scores, own_scores], axis=1)

    def order(
        self,
        queries: tf.Tensor,
        history: tf.Tensor,
        found: tf.Tensor,
        scores: tf.Tensor,
        qualifies: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return candidates, their scores by the retriever and by the ranker, all `[batch, n]`.

        Missing candidates have the scores `NO_SCORE`. The order is that of `candidates`.

        Args:
            queries: Query vectors `[batch, dimension]`.
            history: Candidate indices `[batch, events]`, oldest first; negative if unknown.
            found: Candidates of the retriever `[batch, m]`.
            scores: Their scores by the retriever, best first.
            qualifies: Function that returns a mask of the candidates `[batch, n]` that may be
                recommended; the retriever's must qualify. Default: all.
        """
        recent, length = newest_first(history)
        candidates, retrieval_scores = self.candidates(queries, recent, found, scores)
        if qualifies is not None and not self.exclude_seen:
            retrieval_scores = tf.where(qualifies(candidates), retrieval_scores, NO_SCORE)
        retrieved = Retrieved(recent, length, scores)
        return candidates, retrieval_scores, self.rank(retrieved, candidates, retrieval_scores)

    def rank(self, retrieved: Retrieved, candidates: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Return the scores `[batch, n]` of candidates by the ranker.

        `scores` `[batch, n]` are those by the retriever; candidates with `NO_SCORE` keep it.
        """
        ranked = self._score(self.features(retrieved, candidates, scores))
        return tf.where(scores > NO_SCORE, ranked, NO_SCORE)


def save_stage(
    directory: str, settings: StageSettings, tables: RankingTables, ranker: tf_keras.Model
) -> None:
    """Add a ranking stage to exported towers, with tables in the order of the vocabulary."""
    folder = os.path.join(directory, _FOLDER)
    tf.io.gfile.makedirs(folder)
    tables.save(os.path.join(folder, _TABLES_FILE))
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


def load_stage(
    directory: str, spec: FeatureSpec, ids: Sequence[bytes], vectors_at: VectorsAt
) -> RankingStage:
    """Return the ranking stage of exported towers for a catalogue.

    `ids` are the catalogue's candidate IDs. Those that were not known
    in training have no counts.
    """
    settings = read_settings(directory)
    if settings is None:
        raise ValueError(f"{directory} must have a ranking stage, but has no {_SETTINGS_FILE}")
    # Imported here, because projects without a ranking stage only read its settings.
    from models.ranking.ranker import make_ranker

    folder = os.path.join(directory, _FOLDER)
    vocabulary = os.path.join(directory, tf.saved_model.ASSETS_DIRECTORY, spec.candidate_id)
    tables = RankingTables.load(os.path.join(folder, _TABLES_FILE))
    tables = tables.reordered(_rows_of(read_vocabulary(vocabulary, counted=True), ids))
    ranker = make_ranker(settings.model, len(settings.features))
    weights = load_arrays(os.path.join(folder, _RANKER_FILE))
    ranker.set_weights([weights[name] for name in sorted(weights)])
    stage = RankingStage(tables, vectors_at, exclude_seen=settings.exclude_seen, ranker=ranker)
    if stage.features.names != settings.features:
        raise ValueError(
            f"the ranker in {directory} was trained with the features "
            f"{', '.join(settings.features)}, but this version computes "
            f"{', '.join(stage.features.names)}; train it again"
        )
    return stage


def _rows_of(vocabulary: Sequence[bytes], ids: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Return the index in the vocabulary of each ID, -1 if it is unknown."""
    index_of = {name: index for index, name in enumerate(vocabulary)}
    space = SPACE_IN_ID.encode()
    return np.array([index_of.get(name.replace(b" ", space), -1) for name in ids], np.int64)
