"""Chooses the backend and its settings by measuring, and builds the index."""

import importlib.util
import logging
import math
from dataclasses import asdict, dataclass, replace

from components.index_builder.config import IndexConfig
from components.index_builder.exact_index import ExactIndex
from components.index_builder.index_plans import IndexPlan, partitioned_plan, scann_plan
from components.index_builder.recall import Vectors, exact_answers
from components.index_builder.search_index import SearchIndex
from components.index_builder.tuning import Setting, SettingsT, Trial, single_query_ms, tune

# Below this many candidates ScaNN cannot train its 16-centre codebooks well.
_LEAST_FOR_SCANN = 256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexChoice:
    """The index and why it is this one.

    Attributes:
        index: Built, with the chosen settings.
        settings: Of the backend.
        reason: Of the choice, one sentence.
        trials: What tuning tried.
    """

    index: SearchIndex
    settings: Setting
    reason: str
    trials: tuple[Trial, ...] = ()


def choose_index(vectors: Vectors, tuning_queries: Vectors, config: IndexConfig) -> IndexChoice:
    """Builds the index that the configuration asks for.

    What the configuration leaves open is tuned: the cheapest settings whose recall on
    `tuning_queries` reaches the target. Where none does, the index is exact, and says so; `auto`
    tries `partitioned` before that.

    Args:
        vectors: `[num_candidates, dimension]`; may be a mapped file.
        tuning_queries: `[num_queries, dimension]`, of the query tower for real queries: they lie
            elsewhere than the candidates, and an index that is good for the one can be bad for
            the other.
        config: Of the index.
    """
    backend = config.backend
    if backend == "auto":
        exact = ExactIndex(vectors)
        asked = tuning_queries if len(tuning_queries) else vectors[:1]
        took_ms = single_query_ms(exact, asked, min(config.k, len(vectors)))
        reason = (
            f"exact search of a query takes {took_ms:.2f} ms, `index.latency_budget_ms` is "
            f"{config.latency_budget_ms:g}"
        )
        log.info("%s", reason)
        if took_ms <= config.latency_budget_ms:
            return IndexChoice(exact, {}, reason)
        del exact  # a copy of the catalogue
        return _approximate_of_any(vectors, tuning_queries, config)
    return _of_backend(backend, vectors, tuning_queries, config)


def _approximate_of_any(
    vectors: Vectors, tuning_queries: Vectors, config: IndexConfig
) -> IndexChoice:
    """Returns the first approximate index that reaches the target, or the exact one."""
    backends = ["scann"] if importlib.util.find_spec("scann") else []
    refusals = []
    for backend in [*backends, "partitioned"]:
        choice = _of_backend(backend, vectors, tuning_queries, config)
        if choice.index.backend != "exact":
            break
        refusals.append(choice.reason)
    if not refusals:
        return choice
    if choice.index.backend == "exact":
        refusals.pop()
    return replace(choice, reason="; ".join([*refusals, choice.reason]))


def _of_backend(
    backend: str, vectors: Vectors, tuning_queries: Vectors, config: IndexConfig
) -> IndexChoice:
    if backend == "exact":
        return IndexChoice(ExactIndex(vectors), {}, "as configured")
    if backend == "partitioned":
        return _approximate(partitioned_plan(vectors, config), vectors, tuning_queries, config)
    if len(vectors) < _LEAST_FOR_SCANN:
        return _exact_instead(
            vectors, f"{len(vectors)} candidates are too few for ScaNN ({_LEAST_FOR_SCANN})"
        )
    return _approximate(scann_plan(vectors, config), vectors, tuning_queries, config)


def _approximate(
    plan: IndexPlan[SettingsT], vectors: Vectors, tuning_queries: Vectors, config: IndexConfig
) -> IndexChoice:
    if plan.is_configured or not len(tuning_queries):
        index = plan.build(plan.leaf_counts[-1])
        index.end_tuning()
        reason = "as configured" if plan.is_configured else "there are no queries to tune with"
        return IndexChoice(index, asdict(index.settings), reason)
    exact = exact_answers(vectors, tuning_queries, config.k)
    trials: list[Trial] = []
    chosen, least_us = None, math.inf
    for leaves in plan.leaf_counts:
        index = plan.build(leaves)
        tuned = tune(index, plan.ladders(index), vectors, exact, config.recall_target, least_us)
        index.end_tuning()
        trials += tuned.trials
        if tuned.settings is not None:
            index.settings = tuned.settings
            chosen, least_us = index, tuned.query_us
    if chosen is None:
        best = max(trial.assured_recall for trial in trials)
        return _exact_instead(
            vectors,
            f"no setting of {plan.backend} is sure to reach `index.recall_target` "
            f"{config.recall_target:g}: the best of {len(trials)} has recall {best:.4f}",
            tuple(trials),
        )
    reason = (
        f"the cheapest of {len(trials)} settings tried that is sure to reach "
        f"`index.recall_target` {config.recall_target:g}"
    )
    return IndexChoice(chosen, asdict(chosen.settings), reason, tuple(trials))


def _exact_instead(vectors: Vectors, why: str, trials: tuple[Trial, ...] = ()) -> IndexChoice:
    log.warning("%s; building the exact index", why)
    return IndexChoice(ExactIndex(vectors), {}, f"exact, because {why}", trials)
