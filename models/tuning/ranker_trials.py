"""Trials of the ranker, which all use one retriever and the same queries."""

import copy
from pathlib import Path

import numpy as np
import tensorflow_transform as tft
import tf_keras
from tfx.components.trainer.fn_args_utils import FnArgs

from models.config import HoldoutMetric
from models.ranking.config import RankingConfig
from models.ranking.lists import Lists
from models.ranking.preparation import Preparation
from models.ranking.ranker import train_ranker
from models.training.distribution import make_strategy
from models.training.trainer import TrainerConfig, fit_without_held_back


class RankerTrials:
    """Trains the retriever, then rankers, and measures these on events of neither training.

    Args:
        config: The configuration; `ranking` must be set.
        fn_args: The arguments of `tuner_fn`.
        folder: Folder for checkpoints, from which an interrupted training continues.
    """

    def __init__(self, config: TrainerConfig, fn_args: FnArgs, folder: Path) -> None:
        ranking, tuning = config.ranking, config.tuning
        if ranking is None:
            raise ValueError("a search of the ranker needs `ranking.enabled: true`")
        self._metric, self._seed = HoldoutMetric.parse(config.watched), config.training.seed
        training = config.training.model_copy(update={"strategy": "none"})
        update = {"training": training, "checkpoint_dir": str(folder)}
        arguments = copy.copy(fn_args)
        arguments.transform_output = fn_args.transform_graph_path
        arguments.model_run_dir = str(folder / "log")
        model, events, selectable, _, _ = fit_without_held_back(
            config.model_copy(update=update),
            ranking,
            arguments,
            tft.TFTransformOutput(fn_args.transform_graph_path),
            make_strategy("none"),
        )
        self._catalogue = model.candidate_features
        self._prepared = Preparation(
            model, events, selectable, ranking, exclude_seen=config.exclude_seen
        )
        rng = np.random.default_rng(tuning.seed)
        targets = self._prepared.choose_targets(ranking.max_queries, rng)
        distinct = np.unique(targets)  # an event with a large weight may be drawn twice
        number = round(tuning.holdout_fraction * len(distinct))
        is_measured = np.isin(targets, rng.choice(distinct, number, replace=False))
        self._measured, self._learned = targets[is_measured], targets[~is_measured]
        self._lists: dict[int, Lists] = {}

    def score(self, config: RankingConfig) -> float:
        """Train a ranker and return the metric of the list that would be served.

        Raises:
            DivergedError: The weights of the ranker are not finite.
            TooFewEventsError: The retriever finds the candidates of too few events.
        """
        number = config.num_candidates
        if number not in self._lists:
            rng = np.random.default_rng(self._seed)
            # Only those of the last trial, because lists are large.
            self._lists = {number: self._prepared.make_lists(self._learned, number, rng)}
        tf_keras.utils.set_random_seed(self._seed)
        ranker = self._prepared.make_ranker(config)
        rng = np.random.default_rng(self._seed)
        train_ranker(ranker, self._lists[number], self._catalogue, config, rng)
        return self._metric.mean(self._prepared.ranks(ranker, self._measured, number))
