"""What is asked by where nothing is known of a query."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models.config import ModelConfig, TrainingConfig
from models.features.spec import FeatureSpec
from models.features.vocabularies import FeatureSizes
from models.input.transformed_features import CandidateTable
from models.training.two_tower_model import TwoTowerModel

SPEC = FeatureSpec.model_validate(
    {"columns": {"query_id": "user", "candidate_id": "item"}, "features": {}}
)
NUM_ITEMS = 5
# Three of four begin with candidate 3; what comes next is anything.
TIMELINES = [[3, 0], [3, 1], [3, 2], [3, 4], [3, 0], [3, 1], [2, 0], [1, 4]]


def fitted(similarity: str) -> TwoTowerModel:
    tf_keras.utils.set_random_seed(5)
    model = TwoTowerModel(
        SPEC,
        FeatureSizes(queries=1, candidates=NUM_ITEMS + 1, features={}),
        ModelConfig(
            dimension=8,
            history_encoder="recency",
            share_candidate_ids=True,
            similarity=similarity,
        ),
        TrainingConfig(objective="next_candidate", history_dropout=0.0),
        CandidateTable(NUM_ITEMS, {}),
        np.bincount(np.concatenate(TIMELINES), minlength=NUM_ITEMS),
    )
    model.compile(optimizer=tf_keras.optimizers.Adam(0.05))
    batch = {"user": tf.zeros([len(TIMELINES), 1], tf.int32), "item": tf.constant(TIMELINES)}
    for _ in range(60):
        model.train_step(batch)
    return model


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_query_without_history_is_answered_with_what_most_begin_with(similarity: str):
    model = fitted(similarity)
    tower = model.query_tower
    query = tower(tf.constant([tower.oov]), {}, tower.encode(tf.constant([[-1]])))
    scores = tf.matmul(query, model.candidates(tf.range(NUM_ITEMS)), transpose_b=True)
    assert int(tf.argmax(scores[0])) == 3
