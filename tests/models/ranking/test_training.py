"""Training of a ranker of the next event, without tasks, on events whose order is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import tf_keras

from models.config import ModelConfig, TrainingConfig
from models.ranking.config import RankingConfig
from models.ranking.held_back_events import HeldBackEvents
from models.ranking.preparation import Preparation
from models.ranking.training import train_ranking_stage
from tests.builders import feature_spec, write_examples
from tests.models.fitting import model_of_ids

NUM_ITEMS, NUM_STEPS = 40, 12


def test_the_next_candidate_of_a_walk_comes_first(tmp_path: Path):
    rng = np.random.default_rng(4)
    rows = []
    for user in range(200):
        items = (rng.integers(NUM_ITEMS) + np.arange(NUM_STEPS)) % NUM_ITEMS
        times = user + 1000 * np.arange(NUM_STEPS)
        rows.append({"user": [0], "item": items.tolist(), "timestamp": times.tolist()})
    config = RankingConfig(num_candidates=NUM_ITEMS, held_back_fraction=0.2, epochs=12)
    files = [write_examples(tmp_path, rows)]
    held_back = HeldBackEvents.read(files, feature_spec(timestamp="t"), config, "temporal")
    counts = np.bincount(held_back.before.candidates, minlength=NUM_ITEMS)
    # It has no features. Its weights are random, so only the ranker knows the order of events.
    tf_keras.utils.set_random_seed(1)
    retriever = model_of_ids(ModelConfig(dimension=4), TrainingConfig(), counts)
    arguments = retriever, held_back, np.ones(NUM_ITEMS, bool), config
    trained = train_ranking_stage(*arguments, exclude_seen=True, seed=1)
    measured = trained.report["measured"]["ndcg@10"]
    assert measured["ranked"] > 0.9 > 0.5 > measured["retrieved"]
    prepared = Preparation(*arguments, exclude_seen=True)
    targets = prepared.choose_targets(config.max_queries, rng)
    assert len(targets) == np.count_nonzero(~held_back.is_kept)
    assert (prepared.ranks(trained.ranker, targets, NUM_ITEMS) == 1).mean() > 0.9

    # Some events weigh so much that they are drawn several times.
    weights = np.where(np.arange(len(held_back.weights)) % 5, 0.01, 1.0).astype(np.float32)
    weighted = replace(held_back, weights=weights), *arguments[2:]
    prepared = Preparation(retriever, *weighted, exclude_seen=True)
    drawn = prepared.choose_targets(config.max_queries, rng)
    lists = prepared.make_lists(drawn, NUM_ITEMS, rng)
    assert lists.events.tolist() == drawn.tolist()
    is_measured = lists.choose_measured(rng)
    measured, learned = lists.events[is_measured], lists.events[~is_measured]
    assert len(measured) > len(np.unique(measured))
    assert not np.isin(measured, learned).any()
