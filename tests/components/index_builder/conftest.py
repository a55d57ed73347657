from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.build import build_retrieval_model
from components.index_builder.config import IndexConfig
from components.index_builder.known_histories import HistorySource
from models.input.raw_examples import split_files
from models.towers.saved_towers import SavedTowers
from tests.builders import DESCRIBED_SPEC, title_and_price


@pytest.fixture(scope="session")
def build(
    many_towers: Any,
    many_examples: str,
    many_embeddings: EmbeddingFiles,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Build the retrieval model of `many_towers`; returns its folder and the report."""

    def build(
        directory: Path | None = None,
        examples: str = many_examples,
        histories: HistorySource | None = None,
        **settings: Any,
    ) -> tuple[Path, dict[str, Any]]:
        settings = {"filters": ("genres",), **settings}
        folder = directory or tmp_path_factory.mktemp("retrieval") / "model"
        report = build_retrieval_model(
            SavedTowers(many_towers.directory, many_towers.spec),
            many_embeddings,
            split_files(examples, "eval"),
            DESCRIBED_SPEC,
            IndexConfig(**settings),
            "retrieval",
            "identity",
            str(folder),
            return_fields=FIELDS,
            histories=histories,
        )
        return folder, report

    return build


def history_source(examples: str, newest: int, max_mb: int = 1) -> HistorySource:
    """Return the source of the newest histories in all splits of `many_examples`."""
    buckets = zip(*(split_files(examples, split) for split in ("train", "eval")), strict=True)
    return HistorySource(list(buckets), newest, max_mb)


FIELDS = ("title", "price", "genres")


class Served:
    """Asks the signatures of a saved retrieval model."""

    def __init__(self, folder: Path) -> None:
        self._module = tf.saved_model.load(str(folder))
        self.signatures = self._module.signatures

    def recommend(
        self,
        users: list[str],
        history: list[list[str]] | None = None,
        ages: list[float] | None = None,
        exclude: list[list[str]] | None = None,
        genres: list[list[str]] | None = None,
        exclude_seen: list[bool] | None = None,
    ) -> list[list[tuple[str, float]]]:
        inputs = {
            "user": tf.constant(users, tf.string, [len(users)]),
            "history": padded(history or [[]] * len(users)),
            "age": tf.constant(ages or [float("nan")] * len(users), tf.float32),
        }
        if exclude is None and genres is None and exclude_seen is None:
            return rows(self.signatures["serving_default"](**inputs))
        return rows(
            self.signatures["recommend_excluding"](
                **inputs,
                exclude=padded(exclude or [[]] * len(users)),
                exclude_seen=tf.constant(exclude_seen or [False] * len(users)),
                allow_genres=padded(genres or [[]] * len(users)),
            )
        )

    def similar(
        self, ids: list[str], genres: list[list[str]] | None = None
    ) -> list[list[tuple[str, float]]]:
        answer = self.signatures["similar_candidates"](
            item=tf.constant(ids, tf.string, [len(ids)]),
            allow_genres=padded(genres or [[]] * len(ids)),
        )
        return rows(answer)


def assert_fields(answer: dict[str, Any]) -> None:
    """Check that the fields of an answer are those of its candidates."""
    ids = np.array(answer["candidate_ids"])
    expected = [title_and_price(name.decode()) if name else ("", math.nan) for name in ids.flat]
    for index, name in enumerate(FIELDS[:2]):
        values = np.array(answer[name])
        assert values.shape == ids.shape
        wanted = [row[index].encode() if index == 0 else row[index] for row in expected]
        np.testing.assert_array_equal(values.ravel(), np.array(wanted, values.dtype))


def padded(lists: list[list[str]]) -> tf.Tensor:
    """Return rows of strings as one tensor, filled up with empty strings."""
    return tf.ragged.constant(lists, tf.string, ragged_rank=1).to_tensor("")


def rows(answer: dict[str, tf.Tensor]) -> list[list[tuple[str, float]]]:
    assert set(answer) == {"candidate_ids", "scores", *FIELDS}
    ids, scores = answer["candidate_ids"].numpy(), answer["scores"].numpy()
    assert ids.shape == scores.shape
    assert_fields(answer)
    return [
        [(name.decode(), float(score)) for name, score in zip(*row, strict=True)]
        for row in zip(ids, scores, strict=True)
    ]
