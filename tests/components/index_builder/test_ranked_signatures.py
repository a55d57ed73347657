"""The signatures of a model with a ranking stage, with plain Python as the oracle."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.index_builder import ranked_signatures
from components.index_builder.build import build_retrieval_model
from components.index_builder.config import IndexConfig
from components.retrieval_evaluator.config import EvaluationConfig
from components.retrieval_evaluator.evaluation_queries import read_queries
from components.retrieval_evaluator.two_stage_ranking import RANKED, Model
from models.input.raw_examples import read_candidates, read_timelines, split_files
from models.towers.saved_towers import SavedTowers
from tests.builders import DESCRIBED_SPEC, add_ranking_stage, ranking_tables
from tests.components.index_builder.conftest import FIELDS, assert_fields, history_source, padded

K, NUM_RANKED = 10, 30
LEAST = float(np.finfo(np.float32).min)
RNG = np.random.default_rng(4)
TIMELINES = [RNG.zipf(1.3, 6).clip(1, 300) - 1 for _ in range(200)]
COUNTS = Counter(np.concatenate(TIMELINES).tolist())
# Without the score of the retriever, many candidates would tie.
WEIGHTS = {"popularity": 1.0, "score": 0.1, "position_1": 2.0, "age": 0.2, "comedy": 0.7}
AGE = 3.0
HISTORY = ["item 7", "a b", "unknown", "item 200", "item 7"]


class Ranked:
    """A retrieval model with a ranking stage, and the expected answers."""

    def __init__(self, folder: Path, towers: Any, embeddings: Any, examples: str, **options: Any):
        self.exclude_seen, ranked = options.pop("exclude_seen"), options.pop("ranked", True)
        histories, self.successors = options.pop("histories", None), options.pop("successors", 0)
        shutil.copytree(towers.directory, folder / "towers")
        self.towers = replace(towers, directory=str(folder / "towers"))
        add_ranking_stage(
            self.towers,
            TIMELINES,
            WEIGHTS,
            exclude_seen=self.exclude_seen,
            successors=self.successors,
            num_candidates=NUM_RANKED,
            rated=True,
        )
        self.saved = SavedTowers(self.towers.directory, towers.spec)
        self.report = build_retrieval_model(
            self.saved,
            embeddings,
            split_files(examples, "eval"),
            DESCRIBED_SPEC,
            IndexConfig(k=K, filters=("genres",), **options),
            "retrieval",
            "identity",
            str(folder / "model"),
            return_fields=FIELDS,
            ranked=ranked,
            histories=histories,
        )
        self.module = tf.saved_model.load(str(folder / "model"))

    def call(self, signature: str, users: list[str], **lists: list[list[str]]) -> Any:
        inputs = {name: padded(rows) for name, rows in lists.items()}
        inputs |= {"user": tf.constant(users), "age": tf.fill([len(users)], AGE)}
        if signature == "recommend_excluding":
            inputs["exclude_seen"] = tf.fill([len(users)], False)
        answer = self.module.signatures[signature](**inputs)
        return {name: values.numpy() for name, values in answer.items()}

    def score(self, name: str, retrieval_score: float, history: list[str]) -> float:
        number = COUNTS[self.towers.ids.index(name)]
        known = [event for event in history if event in self.towers.ids]
        is_newest = not self.exclude_seen and known[-1:] == [name]
        genres = self.towers.genres[name]
        declared = 0.2 * AGE + 0.7 * ("comedy" in genres) / max(len(genres), 1)
        return float(np.log1p(number) + 0.1 * retrieval_score + 2.0 * is_newest + declared)

    def best(
        self,
        user: str,
        history: list[str],
        exclude: Sequence[str] = (),
        genres: Sequence[str] = (),
    ) -> list[tuple[str, float]]:
        hidden = [*exclude, *(history if self.exclude_seen else [])]
        query = self.towers.embed(user, history, AGE)
        found = dict(self.towers.best(query, hidden, genres)[:NUM_RANKED])
        allowed = dict(self.towers.best(query, hidden, genres))
        others = [] if self.exclude_seen else history
        if known := [event for event in history if event in self.towers.ids]:
            ids = self.towers.ids
            successors = ranking_tables(TIMELINES, len(ids)).successors[ids.index(known[-1])]
            others = [*others, *(ids[of] for of in successors[: self.successors] if of >= 0)]
        found |= {name: allowed[name] for name in others if name in allowed}
        scores = {name: self.score(name, score, history) for name, score in found.items()}
        return sorted(scores.items(), key=lambda pair: -pair[1])[:K]


@pytest.fixture(scope="module")
def make(
    many_towers: Any, many_embeddings: Any, many_examples: str, tmp_path_factory: Any
) -> Callable[..., Ranked]:
    def make(**options: Any) -> Ranked:
        folder = tmp_path_factory.mktemp("ranked")
        return Ranked(folder, many_towers, many_embeddings, many_examples, **options)

    return make


@pytest.fixture(
    scope="module",
    params=[(False, 0), (True, 0), (True, 9)],
    ids=["repeats", "exclude_seen", "successors"],
)
def ranked(request: pytest.FixtureRequest, make: Callable[..., Ranked]) -> Ranked:
    exclude_seen, successors = request.param
    return make(backend="exact", exclude_seen=exclude_seen, successors=successors)


def assert_equal(answer: Any, row: int, expected: list[tuple[str, float]]) -> None:
    names = [name.decode() for name in answer["candidate_ids"][row]]
    assert names == [name for name, _ in expected] + [""] * (K - len(expected))
    scores = answer["scores"][row]
    np.testing.assert_allclose(scores[: len(expected)], [s for _, s in expected], rtol=1e-4)
    assert (scores[len(expected) :] == LEAST).all()
    assert_fields(answer)


def test_the_best_candidates_the_history_and_successors_are_ranked(ranked: Ranked):
    histories = [HISTORY, [], ["item 9"]]
    users = ["user 1", "user 2", "nobody"]
    answer = ranked.call("serving_default", users, history=histories)
    for row, (user, history) in enumerate(zip(users, histories, strict=True)):
        assert_equal(answer, row, ranked.best(user, history))
        # Another row must not change it, nor its padding.
        assert_equal(
            ranked.call("serving_default", [user], history=[history]), 0, ranked.best(user, history)
        )
    if ranked.exclude_seen:
        assert not {*HISTORY} & {name.decode() for name in answer["candidate_ids"][0]}


def test_retrieval_scores_are_those_of_the_retriever(ranked: Ranked):
    answer = ranked.call("serving_default", ["user 1"], history=[HISTORY])
    scores = dict(ranked.towers.best(ranked.towers.embed("user 1", HISTORY, AGE)))
    wanted = [scores[name.decode()] for name in answer["candidate_ids"][0]]
    np.testing.assert_allclose(answer["retrieval_scores"][0], wanted, rtol=1e-4, atol=1e-5)
    retrieved = ranked.call("retrieve", ["user 1"], history=[HISTORY])
    assert [name.decode() for name in retrieved["candidate_ids"][0]] == [*scores][:K]


def test_tasks_are_predicted_for_returned_and_given_candidates(ranked: Ranked):
    answer = ranked.call("serving_default", ["user 1"], history=[HISTORY])
    names = [name.decode() for name in answer["candidate_ids"][0]]
    wanted = [3.0 + ranked.towers.ids.index(name) / 100 for name in names]
    np.testing.assert_allclose(answer["rating"][0], wanted, rtol=1e-5)
    given = [["no such item", *names, ""]]
    answer = ranked.call("rank", ["user 1"], history=[HISTORY], candidate_ids=given)
    np.testing.assert_allclose(answer["rating"][0], [LEAST, *wanted, LEAST], rtol=1e-5)


def test_tasks_are_predicted_in_the_order_of_the_retriever_if_ranking_does_not_help(
    make: Callable[..., Ranked],
):
    ranked = make(backend="exact", exclude_seen=False, ranked=False)
    answer = ranked.call("serving_default", ["user 1"], history=[HISTORY])
    best = ranked.towers.best(ranked.towers.embed("user 1", HISTORY, AGE))[:K]
    assert_equal(answer, 0, best)
    wanted = [3.0 + ranked.towers.ids.index(name) / 100 for name, _ in best]
    np.testing.assert_allclose(answer["rating"][0], wanted, rtol=1e-5)
    given = [[name for name, _ in best]]
    answer = ranked.call("rank", ["user 1"], history=[HISTORY], candidate_ids=given)
    np.testing.assert_allclose(answer["scores"][0], [score for _, score in best], rtol=1e-4)


@pytest.mark.parametrize("genres", [[], ["comedy"], ["é noir"], ["opera"]])
def test_exclusions_and_filters_hold_for_the_history_too(ranked: Ranked, genres: list[str]):
    exclude = ["item 200", ranked.best("user 3", HISTORY)[0][0], "", "unknown"]
    answer = ranked.call(
        "recommend_excluding",
        ["user 3"],
        history=[HISTORY],
        exclude=[exclude],
        allow_genres=[genres],
    )
    assert_equal(answer, 0, ranked.best("user 3", HISTORY, exclude, genres))


def test_rank_scores_given_candidates_in_their_order(ranked: Ranked):
    names = [name for name, _ in ranked.best("user 1", HISTORY)]
    given = ["no such item", *names[::-1], "", *names]
    answer = ranked.call("rank", ["user 1"], history=[HISTORY], candidate_ids=[given])
    scores = ranked.call("serving_default", ["user 1"], history=[HISTORY])["scores"][0]
    np.testing.assert_allclose(
        answer["scores"][0], [LEAST, *scores[::-1], LEAST, *scores], rtol=1e-4
    )
    assert np.isfinite(answer["retrieval_scores"]).all()
    none = ranked.call("rank", ["user 1"], history=[HISTORY], candidate_ids=[[]])
    assert none["scores"].shape == (1, 0)


def test_an_empty_batch_gets_an_empty_response(ranked: Ranked):
    answer = ranked.module.signatures["serving_default"](
        user=tf.zeros([0], tf.string), history=tf.zeros([0, 0], tf.string), age=tf.zeros([0])
    )
    assert answer["scores"].shape == (0, K)


@pytest.mark.parametrize("index", [{"backend": "partitioned"}, {"backend": "scann"}])
def test_approximate_indexes_rank_what_they_find(make: Callable[..., Ranked], index: Any):
    leaves = {"leaves": 10, "leaves_to_search": 10}
    reorder = {"reorder": 300} if index["backend"] == "scann" else {}
    ranked = make(exclude_seen=False, **index, **leaves, **reorder)
    answer = ranked.call("serving_default", ["user 1"], history=[HISTORY])
    assert_equal(answer, 0, ranked.best("user 1", HISTORY))


@pytest.mark.parametrize("backend", ["partitioned", "scann"])
def test_an_answer_does_not_depend_on_the_length_of_other_histories(
    make: Callable[..., Ranked], backend: str
):
    settings = {
        "leaves": 20,
        "leaves_to_search": 4,
        "recall_target": 0.01,
        "max_hit_rate_loss": 1.0,
    }
    settings |= {"reorder": 40} if backend == "scann" else {}
    ranked = make(backend=backend, exclude_seen=True, **settings)
    alone = ranked.call("serving_default", ["user 1"], history=[HISTORY])
    longer = [HISTORY, [f"item {number}" for number in range(60)]]
    together = ranked.call("serving_default", ["user 1", "user 2"], history=longer)
    for name, values in alone.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(together[name][0], values[0], rtol=1e-4)
        else:
            assert together[name][0].tolist() == values[0].tolist()


def test_the_index_is_judged_by_the_ranked_list(
    ranked: Ranked,
    make: Callable[..., Ranked],
    many_examples: str,
    monkeypatch: pytest.MonkeyPatch,
):
    # With more, an index of this size would search all of its candidates.
    monkeypatch.setattr(ranked_signatures, "_FEWEST_EXCLUSIONS", 0)
    leaves = {"leaves": 12, "leaves_to_search": 1}
    gate = {"recall_target": 0.01, "max_hit_rate_loss": 1.0}
    other = make(exclude_seen=ranked.exclude_seen, backend="partitioned", **leaves, **gate)
    [queries] = read_timelines(split_files(many_examples, "eval"), DESCRIBED_SPEC, 100)
    rates = []
    for each in (ranked, other):
        answer = each.module.signatures["serving_default"](**queries.inputs)
        answers = [set(row.tolist()) for row in answer["candidate_ids"].numpy()[::2]]
        targets = queries.targets.to_list()[::2]
        pairs = zip(answers, targets, strict=True)
        rates.append(np.mean([name in found for found, names in pairs for name in names]))
    assert rates[0] != rates[1]
    assert other.report["hit_rate_exact"] == ranked.report["hit_rate"] == pytest.approx(rates[0])
    assert other.report["hit_rate"] == pytest.approx(rates[1])
    assert other.report["k"] == NUM_RANKED


def test_the_evaluation_ranks_what_is_served(ranked: Ranked, many_examples: str):
    ids = np.array([name.encode() for name in ranked.towers.ids], object)
    index_of = {name: index for index, name in enumerate(ids)}
    files, spec = split_files(many_examples, "candidates"), ranked.towers.spec
    catalogue = read_candidates(files, spec, 100)
    rank = Model.load(ranked.saved, spec, ids, ranked.towers.vectors, catalogue).rankers()[RANKED]
    [block] = read_queries(
        split_files(many_examples, "eval"),
        ranked.towers.spec,
        EvaluationConfig(protocol="rolling"),
        lambda names: np.array([index_of[name] for name in names.numpy()]),
        len(ids),
        block_size=100,
    )
    [(_, ranking)] = rank(block)
    positions, candidates = ranking.best(K)
    answer = ranked.module.signatures["serving_default"](**block.inputs)["candidate_ids"].numpy()
    evaluated = np.full(answer.shape, b"", object)
    rows = np.cumsum(positions == 0) - 1
    evaluated[rows, positions] = ids[candidates]
    assert len(answer) == len(block) > 20
    np.testing.assert_array_equal(evaluated, answer)


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_a_stored_history_is_ranked_like_one_of_the_request(
    make: Callable[..., Ranked], many_examples: str, exclude_seen: bool
):
    histories = history_source(many_examples, newest=3)
    ranked = make(backend="exact", exclude_seen=exclude_seen, histories=histories)
    timelines = next(read_timelines(split_files(many_examples, "eval"), ranked.towers.spec, 2))
    user = timelines.inputs["user"].numpy()[1].decode()
    history = [event.decode() for event in timelines.events[1].numpy()][-3:]
    answer = ranked.call("serving_default", [user], history=[[]])
    assert_equal(answer, 0, ranked.best(user, history))
    ids = [["item 7", history[-1]]]
    found, wanted = (
        ranked.call("rank", [user], history=[of], candidate_ids=ids) for of in ([], history)
    )
    np.testing.assert_allclose(found["scores"], wanted["scores"], rtol=1e-5)
