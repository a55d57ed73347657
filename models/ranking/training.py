"""Training of the ranking stage on training events that its retriever has not seen.

A ranker that learns from events that its retriever or its tables have counted is worse than none:
hit_rate@20 on shop sessions was .464 instead of .578, and .521 without a ranker.
"""

import gc
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_recommenders as tfrs
import tf_keras

from models.ranking.config import RankingConfig
from models.ranking.estimates import Estimates
from models.ranking.held_back_events import HeldBackEvents
from models.ranking.importance import cross_norms, measure
from models.ranking.preparation import Preparation
from models.ranking.ranker import Ranker, shrink_corrections, train_ranker
from models.ranking.report import PAIR, write_report
from models.ranking.saved_stage import StageSettings, save_stage
from models.ranking.tables import RankingTables
from models.training.two_tower_model import TwoTowerModel

log = logging.getLogger(__name__)

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TrainedRanker:
    """A trained ranker, its settings, tables of all training events, and a report."""

    ranker: Ranker
    settings: StageSettings
    tables: RankingTables
    estimates: Mapping[str, Estimates]
    report: dict[str, Any]

    def save(self, directory: str) -> None:
        """Add the ranking stage to the exported towers."""
        save_stage(directory, self.settings, self.tables, self.estimates, self.ranker)

    def save_report(self, directory: str) -> None:
        """Write the report and the importance of the features."""
        write_report(self.report, directory)


def train_ranking_stage(
    model: TwoTowerModel,
    held_back: HeldBackEvents,
    selectable: Bools,
    config: RankingConfig,
    *,
    exclude_seen: bool,
    seed: int,
    initialize: Callable[[Ranker, StageSettings], str | None] | None = None,
) -> TrainedRanker:
    """Train a ranker on the events that were held back from the retriever `model`.

    The arguments are those of `Preparation`. Each of the events is predicted from others of its
    timeline, among the `selectable` candidates. `initialize` sets the initial weights, and returns
    the folder of the model that they are from, or None.

    Raises:
        DivergedError: The weights of the ranker are not finite.
        TooFewEventsError: The retriever finds the candidates of too few events.
    """
    started = time.process_time()
    prepared = Preparation(model, held_back, selectable, config, exclude_seen=exclude_seen)
    rng = np.random.default_rng(seed)
    chosen = prepared.choose_targets(config.max_queries, rng)
    lists = prepared.make_lists(chosen, config.num_candidates, rng)
    # Measured on other events than those that it learns from.
    measured = lists.choose_measured(rng)
    tf_keras.utils.set_random_seed(seed)  # also if the retriever was trained in an earlier process
    ranker, settings = prepared.make_ranker(config), prepared.settings(config)
    source = None if initialize is None else initialize(ranker, settings)
    train_ranker(ranker, lists.take(~measured), model.candidate_features, config, rng)
    shares = shrink_corrections(ranker, lists.take(measured), model.candidate_features)
    number_found = int(lists.is_found.sum())
    lists = lists.take(measured & lists.is_found)
    inputs = np.asarray(ranker.inputs_of(lists, model.candidate_features))
    quality = measure(
        lambda of: ranker.predict(of)[0], inputs, lists.is_candidate, ranker.columns, rng
    )
    # Its tables and lists take as much memory as the new tables.
    del prepared, lists, inputs
    gc.collect()
    tables = RankingTables.count(held_back.events, model.num_candidates)
    everything = held_back.estimates(np.ones_like(held_back.is_kept), model.num_candidates)
    report = {
        "queries": len(chosen),
        "queries_with_target_found": number_found,
        "corrections": shares,
        "warm_start": source,
        "cpu_seconds": round(time.process_time() - started, 3),
        "measured": quality,
        "crosses": {},
    }
    if config.model == "dcn":
        layers = ranker.network.layers
        cross = next(layer for layer in layers if isinstance(layer, tfrs.layers.dcn.Cross))
        norms = cross_norms(cross.get_weights()[0], ranker.columns)
        report["crosses"] = {PAIR.join(pair): norm for pair, norm in norms.items()}
    log.info("trained a ranker: %s", report)
    estimates = dict(zip(config.tasks, everything, strict=True))
    return TrainedRanker(ranker, settings, tables, estimates, report)
