"""Measure the ranking stage without each group of its features.

The pipeline trains `movielens_100k_temporal`. Then, one retriever without the events that are held
back gives lists of candidates, from which a ranker is trained for each row of the table. All rank
the same evaluation queries. Rows with `less all features` are differences of the same queries.

Usage: python benchmarks/ranking_ablation.py [--json] [--runs FOLDER]
"""

import copy
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt

from benchmarks._processes import run_pipeline
from benchmarks._report import Row, options_parser, row, run
from benchmarks.quality import error_over_queries, gains, loaded

CONFIG, METRICS = "movielens_100k_temporal", ("hit_rate@10", "ndcg@10")
ALL = "all features"
DECLARED = "features of films"
# Features of the history's own candidates are missing, because a film is rated once.
GROUPS: Mapping[str, Sequence[str]] = {
    "score of the retriever": ("score", "rank", "margin"),
    "popularity and age": ("popularity", "recent", "trend", "age", "idle"),
    "sequential rules": ("rules_1", "rules_2", "rules_3", "rules"),
    "co-occurrence": ("cooccurrence_max", "cooccurrence"),
    "rules and co-occurrence": (
        *("rules_1", "rules_2", "rules_3", "rules", "cooccurrence_max", "cooccurrence"),
    ),
    "similarity of vectors": ("similarity_last", "similarity_max", "similarity"),
    "history": ("length", "distinct"),
}

Gains = npt.NDArray[np.float64]


def trainer_arguments(config: Any, folder: Path) -> tuple[Any, Any]:
    """Return the configuration and the arguments of the Trainer in the newest run."""
    from tfx.components.trainer.fn_args_utils import FnArgs
    from tfx.utils import json_utils

    from models.training.trainer import TRAINER_KEY, TrainerConfig
    from pipeline.definition import create_components
    from pipeline.runs.evaluation import newest_run_outputs

    [trainer] = (node for node in create_components(config) if node.id == "Trainer")
    custom_config = json_utils.loads(trainer.exec_properties["custom_config"])
    examples, graph = (
        newest_run_outputs(config, {"Transform": key})["Transform"]
        for key in ("transformed_examples", "transform_graph")
    )
    arguments = FnArgs(
        train_files=[f"{examples}/Split-train/*"],
        eval_files=[f"{examples}/Split-candidates/*"],
        transform_output=graph,
        model_run_dir=str(folder / "log"),
    )
    return TrainerConfig.model_validate(custom_config[TRAINER_KEY]), arguments


class Evaluator:
    """Measures ranking stages in the folder of exported towers on the evaluation queries."""

    def __init__(self, config: Any, directory: str) -> None:
        from models.towers.saved_towers import SavedTowers
        from pipeline.runs.evaluation import newest_output

        self._config, self._towers = config, SavedTowers(directory, config.spec)
        self._examples = newest_output(config, "TimelineExampleGen", "examples")
        settings = config.evaluation.for_split(config.split.method, config.spec)
        self._settings = settings.model_copy(update={"baselines": ("popularity",)})

    def gains(self) -> tuple[dict[str, dict[str, Gains]], npt.NDArray[np.int64]]:
        """Return the gain of each event by list and metric, and its query."""
        from components.retrieval_evaluator.evaluate import evaluate
        from components.retrieval_evaluator.event_results import RANK
        from components.retrieval_evaluator.rankers import MODEL
        from components.retrieval_evaluator.two_stage_ranking import RANKED, RETRIEVED

        _, results, _ = evaluate(self._towers, self._examples, self._config.spec, self._settings)
        ranks, found = results.ranks(RANK), {}
        for name in (RANKED, RETRIEVED):
            # The list that would be served has another name.
            of_list = np.asarray(ranks.get(name, ranks[MODEL]), np.float64)
            found[name] = {metric: gains(metric, of_list) for metric in METRICS}
        _, query = np.unique(results.columns["query_id"].astype(str), return_inverse=True)
        return found, query


def rows(options: Any, folder: Path) -> Iterator[Row]:
    runs = options.runs or str(folder / "runs")
    run_pipeline(CONFIG, runs, fresh=False)
    import tensorflow as tf
    import tensorflow_transform as tft
    import tf_keras
    from tfx.utils import path_utils

    from models.ranking.preparation import Preparation
    from models.ranking.ranker import Ranker, train_ranker
    from models.ranking.saved_stage import save_stage
    from models.ranking.tables import RankingTables
    from models.towers.export import export_towers
    from models.training.distribution import make_strategy
    from models.training.trainer import fit_without_held_back
    from pipeline.runs.evaluation import newest_output

    tf.config.experimental.enable_op_determinism()
    config = loaded(CONFIG, runs)
    model = path_utils.serving_model_dir(newest_output(config, "Trainer", "model"))
    served = str(folder / "served")
    shutil.copytree(model, served)
    evaluator = Evaluator(config, served)
    complete, query = evaluator.gains()
    for label, of_list in (("retriever alone", "retrieved"), (ALL, "ranked")):
        for metric, gain in complete[of_list].items():
            error = error_over_queries(gain, query)
            yield row(f"{label}: {metric}", gain.mean(), "share", standard_error=error)

    trainer, arguments = trainer_arguments(config, folder)
    transform = tft.TFTransformOutput(arguments.transform_output)
    ranking, seed = trainer.ranking, trainer.training.seed
    first, events, selectable, state, _ = fit_without_held_back(
        trainer, ranking, arguments, transform, make_strategy("none")
    )
    state.discard()
    prepared = Preparation(first, events, selectable, ranking, exclude_seen=trainer.exclude_seen)
    rng = np.random.default_rng(seed)
    targets = prepared.choose_targets(ranking.max_queries, rng)
    lists = prepared.make_lists(targets, ranking.num_candidates, rng)
    lists = lists.take(~lists.choose_measured(rng))  # as in the pipeline
    tables = RankingTables.count(events.events, first.num_candidates)

    def trained(
        out: Sequence[str] = (), directory: str = served, **changed: Any
    ) -> dict[str, Gains]:
        """Train a ranker without some features, and return its gains."""
        settings = prepared.settings(ranking.model_copy(update=changed))
        if DECLARED in out:
            settings = settings.model_copy(update={"declared": {}})
        names = settings.features
        # Constant features become 0 when they are normalised, and stay so in the served model.
        features = lists.features * np.array([name not in out for name in names], np.float32)
        tf_keras.utils.set_random_seed(seed)
        spec, architecture = config.spec.features, settings.architecture
        ranker = Ranker(architecture, names, spec, settings.declared, settings.tasks)
        train_ranker(
            ranker,
            lists._replace(features=features),
            first.candidate_features,
            ranking.model_copy(update=changed),
            copy.deepcopy(rng),
        )
        save_stage(directory, settings, tables, {}, ranker)
        of = evaluator if directory == served else Evaluator(config, directory)
        return of.gains()[0]["ranked"]

    once = str(folder / "once")
    export_towers(first.query_tower, first.candidate_tower, transform, once, ranked=True)
    others: dict[str, Mapping[str, Any]] = {
        f"{ALL}, trained here": {},
        **{f"without {group}": {"out": out} for group, out in GROUPS.items()},
        f"without {DECLARED}": {"out": (DECLARED,)},
        "linear model": {"model": "linear"},
        "one training of the retriever": {"directory": once},
    }
    for name, arguments_of in others.items():
        for metric, gain in trained(**arguments_of).items():
            yield row(f"{name}: {metric}", gain.mean(), "share")
            less = gain - complete["ranked"][metric]
            error = error_over_queries(less, query)
            label = f"{name} less {ALL}: {metric}"
            yield row(label, less.mean(), "share", standard_error=error)


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("--runs", help="a folder of runs, whose cached results are reused")
    run(parser, rows, "tensorflow", "tfx", "numpy")
