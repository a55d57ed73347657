"""Fixtures for tests of several packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import builders
from tests.builders import KnownTowers, Row, export_known_towers

WriteExamples = Callable[[Path, Sequence[Row]], str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--renew-golden", action="store_true", help="overwrite the golden files, for review"
    )


@pytest.fixture(scope="session")
def write_examples() -> WriteExamples:
    return builders.write_examples


@pytest.fixture(scope="session")
def make_towers(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., KnownTowers]:
    """Export `KnownTowers` with these candidates and queries."""

    def make(
        vectors_by_id: Mapping[str, Sequence[float]],
        queries: Mapping[str, Sequence[float]] | None = None,
        **options: Any,
    ) -> KnownTowers:
        folder = tmp_path_factory.mktemp("towers") / "Format-Serving"
        return export_known_towers(str(folder), vectors_by_id, queries, **options)

    return make


NUM_MANY, DIMENSION = 300, 8


@pytest.fixture(scope="session")
def many_towers(make_towers: Callable[..., KnownTowers]) -> KnownTowers:
    """300 random candidates, enough for ScaNN; ids with spaces and of other scripts among them."""
    rng = np.random.default_rng(7)
    names = ["a b", " two  spaces ", "ü→漢字", "товар 1", "🎬"]
    names += [f"item {number}" for number in range(NUM_MANY - len(names))]
    vectors = rng.normal(size=(NUM_MANY, DIMENSION))
    queries = {f"user {number}": rng.normal(size=DIMENSION) for number in range(20)}
    return make_towers(dict(zip(names, vectors, strict=True)), queries)


@pytest.fixture(scope="session")
def many_examples(many_towers: KnownTowers, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Examples for `many_towers`: every user has seen five candidates and will take two more."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(8)
    timelines = []
    for index, user in enumerate(many_towers.queries):
        events = [many_towers.ids[event] for event in rng.choice(NUM_MANY, 7, replace=False)]
        age = [0.1 * index] if index % 3 else []
        timelines.append({"user": [user], "age": age, "item": events})
    rows = {
        "train": [{**row, "is_target": [0] * 7, "genres": []} for row in timelines],
        "eval": [{**row, "is_target": [0] * 5 + [1] * 2, "genres": []} for row in timelines],
        "candidates": [
            {"item": [name], "genres": list(many_towers.genres[name]), "user": [], "age": []}
            for name in many_towers.ids
        ],
    }
    return builders.examples_artifact(folder, **rows).uri


@pytest.fixture(scope="session")
def many_embeddings(many_towers: KnownTowers, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The catalogue of `many_towers`, with titles and prices, as CandidateEmbedder writes it."""
    parts = []
    for rows in (slice(0, 100), slice(100, NUM_MANY)):
        names = many_towers.ids[rows]
        genres = [[genre.encode() for genre in many_towers.genres[name]] for name in names]
        padded = [row + [b""] * (3 - len(row)) for row in genres]
        titles, prices = zip(*map(builders.title_and_price, names), strict=True)
        columns = {
            "item": [name.encode() for name in names],
            "genres": padded,
            "title": [title.encode() for title in titles],
            "price": prices,
        }
        parts.append((columns, many_towers.vectors[rows]))
    folder = tmp_path_factory.mktemp("embeddings")
    return builders.write_embeddings(folder, builders.DESCRIBED_SPEC, *parts)
