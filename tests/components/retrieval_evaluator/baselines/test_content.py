import numpy as np
import pytest
from scipy import sparse

from components.retrieval_evaluator.baselines import content
from components.retrieval_evaluator.baselines.content import Content, feature_values
from components.retrieval_evaluator.baselines.popularity import popularity_scores
from tests.components.retrieval_evaluator.baselines.timelines import (
    histories_of,
    indices,
    ranking,
)

# a and b share brand and category, c the category, d the brand; e has no values.
BATCHES = [
    {"brand": [b"x", b"x"], "category": [[b"s", b""], [b"s", b"t"]]},
    {"brand": [b"y", b"x", b""], "category": [[b"s"], [b"t"], [b""]]},
]
VALUES = feature_values(BATCHES, ["brand", "category"])
POPULARITY = popularity_scores(np.arange(5, 0, -1))


def test_each_feature_has_its_own_values():
    same = feature_values([{"brand": [b"x"], "category": [[b"x", b"x"]]}], ["brand", "category"])
    np.testing.assert_array_equal(same.toarray(), [[1, 1]])
    # x, s, t, y
    expected = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(np.sort(VALUES.toarray().sum(axis=0)), [1, 2, 3, 3])
    assert sorted(VALUES.toarray().tolist()[3]) == sorted(expected[3])


def brute_force(word: str) -> np.ndarray:
    dense = VALUES.toarray()
    vectors = dense * np.log1p(5 / dense.sum(axis=0))
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    scores = np.zeros(5)
    for age, event in enumerate(reversed(indices(word))):
        if event >= 0:
            scores += vectors @ vectors[event] / (1 + age)
    return scores / np.log2(np.arange(2, 7))


@pytest.mark.parametrize("scores_per_chunk", [1, 1000])
def test_scores_are_discounted_similarities(
    monkeypatch: pytest.MonkeyPatch, scores_per_chunk: int
) -> None:
    monkeypatch.setattr(content, "_SCORES_PER_CHUNK", scores_per_chunk)
    histories = ["a", "cd", "?b", "e", "abcde"]
    found = Content(VALUES, POPULARITY).scores(histories_of(histories)).dense()
    expected = np.stack([brute_force(word) for word in histories])
    np.testing.assert_allclose(np.maximum(found, 0), expected, rtol=2e-3)


def test_shared_brand_and_category_rank_before_one_of_them():
    scores = Content(VALUES, POPULARITY).scores(histories_of(["a", ""])).dense()
    assert ranking(scores)[0].startswith("ab")
    assert ranking(scores)[1] == "abcde"


def test_a_catalogue_without_values_ranks_by_popularity():
    values = sparse.csr_matrix((5, 0))
    assert ranking(Content(values, POPULARITY).scores(histories_of(["c"])).dense()) == ["abcde"]
