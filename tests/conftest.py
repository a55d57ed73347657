"""Shared by tests of several rooms: Examples on disk, and towers whose vectors are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import models  # noqa: F401 - chooses Keras 2 before a test imports TensorFlow
from models.features.spec import FeatureSpec


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--renew-golden", action="store_true", help="write the golden files anew, to be read"
    )


Row = Mapping[str, Sequence[Any]]
WriteExamples = Callable[[Path, Sequence[Row]], str]


def _example(row: Row) -> bytes:
    import tensorflow as tf

    features = {}
    for name, values in row.items():
        if any(isinstance(value, str | bytes) for value in values):
            encoded = [value.encode() if isinstance(value, str) else value for value in values]
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))
        elif any(isinstance(value, float) for value in values):
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        elif values:
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        else:
            features[name] = tf.train.Feature()
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture(scope="session")
def write_examples() -> WriteExamples:
    """Write rows as one file of Examples in a folder; returns the file."""
    import tensorflow as tf

    def write(folder: Path, rows: Sequence[Row]) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        file = str(folder / "data-00000-of-00001.gz")
        with tf.io.TFRecordWriter(file, options="GZIP") as writer:
            for row in rows:
                writer.write(_example(row))
        return file

    return write


@dataclass(frozen=True)
class KnownTowers:
    """Towers that anyone can follow with pencil and paper.

    A candidate's vector stands in `vectors`. A query's is that of its id in `queries`, plus the
    mean of its known history, plus its age times `age_direction`; what is unknown adds nothing.
    """

    directory: str
    spec: FeatureSpec
    ids: list[str]
    vectors: npt.NDArray[np.float32]
    genres: Mapping[str, Sequence[str]]
    queries: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    @property
    def age_direction(self) -> npt.NDArray[np.float32]:
        return np.eye(1, self.vectors.shape[1], dtype=np.float32)[0]

    def embed(
        self, query_id: str = "", history: Sequence[str] = (), age: float = math.nan
    ) -> npt.NDArray[np.float32]:
        total = np.zeros(self.vectors.shape[1], np.float32)
        total += self.queries.get(query_id, 0.0)
        known = [self.vectors[self.ids.index(event)] for event in history if event in self.ids]
        if known:
            total += np.mean(known, axis=0)
        return total if math.isnan(age) else total + np.float32(age) * self.age_direction

    def best(
        self,
        query: npt.NDArray[np.float32],
        exclude: Sequence[str] = (),
        genres: Sequence[str] = (),
    ) -> list[tuple[str, float]]:
        """All candidates with their scores, best first: the oracle of every index."""
        scores = self.vectors @ query
        return [
            (self.ids[place], float(scores[place]))
            for place in np.argsort(-scores, kind="stable")
            if self.ids[place] not in exclude
            and (not genres or set(genres) & set(self.genres[self.ids[place]]))
        ]


KNOWN_SPEC = FeatureSpec.model_validate(
    {
        "columns": {"query_id": "user", "candidate_id": "item"},
        "features": {
            "query": {"age": {"kind": "numeric"}},
            "candidate": {"genres": {"kind": "categorical", "separator": "|"}},
        },
    }
)


def _genres(place: int) -> list[str]:
    """A common genre, a middling one, one of a few candidates; one candidate in six has none."""
    found = {"drama": place % 2 == 0, "comedy": place % 3 == 0, "é noir": place % 75 == 3}
    return [genre for genre, has in found.items() if has]


def export_known_towers(
    directory: str,
    vectors_by_id: Mapping[str, Sequence[float]],
    queries: Mapping[str, Sequence[float]] | None = None,
) -> KnownTowers:
    """Saves towers with the signatures of `models.towers.export`."""
    import tensorflow as tf

    from models.input.raw_inputs import candidate_inputs, query_inputs, same_batch

    ids = list(vectors_by_id)
    vectors = np.array(list(vectors_by_id.values()), np.float32)
    known = {name: np.array(values, np.float32) for name, values in (queries or {}).items()}
    genres = {name: _genres(place) for place, name in enumerate(ids)}
    towers = KnownTowers(directory, KNOWN_SPEC, ids, vectors, genres, known)

    def table(keys: Sequence[str]) -> Any:
        places = tf.range(len(keys), dtype=tf.int64)
        initializer = tf.lookup.KeyValueTensorInitializer(
            tf.constant(list(keys), tf.string), places
        )
        return tf.lookup.StaticHashTable(initializer, len(keys))

    def with_unknown(rows: Any) -> Any:
        shaped = np.reshape(np.array(rows, np.float32), [-1, vectors.shape[1]])
        return tf.Variable(np.concatenate([shaped, np.zeros([1, vectors.shape[1]], np.float32)]))

    class Towers(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.candidate_index, self.query_index = table(ids), table(list(known))
            self.vectors = with_unknown(vectors)
            self.queries = with_unknown(list(known.values()))

        def embed_query(self, **inputs: Any) -> dict[str, Any]:
            rows = same_batch(inputs)
            events = self.candidate_index.lookup(rows["history"])
            seen = tf.cast(events < len(ids), tf.float32)[..., None]
            total = tf.reduce_sum(tf.gather(self.vectors, events) * seen, axis=1)
            mean = total / tf.maximum(tf.reduce_sum(seen, axis=1), 1.0)
            age = tf.where(tf.math.is_finite(rows["age"]), rows["age"], 0.0)[:, None]
            own = tf.gather(self.queries, self.query_index.lookup(rows["user"]))
            return {"embedding": own + mean + age * towers.age_direction}

        def embed_candidate(self, **inputs: Any) -> dict[str, Any]:
            rows = same_batch(inputs)
            return {"embedding": tf.gather(self.vectors, self.candidate_index.lookup(rows["item"]))}

    module = Towers()
    signatures = {
        name: tf.function(function, autograph=False).get_concrete_function(**tensors)
        for name, function, tensors in (
            ("embed_query", module.embed_query, query_inputs(KNOWN_SPEC)),
            ("embed_candidate", module.embed_candidate, candidate_inputs(KNOWN_SPEC)),
        )
    }
    tf.saved_model.save(module, directory, signatures=signatures)
    return towers


@pytest.fixture(scope="session")
def make_towers(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., KnownTowers]:
    """Export `KnownTowers` of the vectors by id, and of queries by id."""

    def make(
        vectors_by_id: Mapping[str, Sequence[float]],
        queries: Mapping[str, Sequence[float]] | None = None,
    ) -> KnownTowers:
        folder = tmp_path_factory.mktemp("towers") / "Format-Serving"
        return export_known_towers(str(folder), vectors_by_id, queries)

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
def many_examples(
    many_towers: KnownTowers,
    write_examples: WriteExamples,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """Examples for `many_towers`: every user has seen five candidates and will take two more."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(8)
    timelines = []
    for place, user in enumerate(many_towers.queries):
        events = [many_towers.ids[event] for event in rng.choice(NUM_MANY, 7, replace=False)]
        age = [0.1 * place] if place % 3 else []
        timelines.append({"user": [user], "age": age, "item": events})
    write_examples(
        folder / "Split-train", [{**row, "is_target": [0] * 7, "genres": []} for row in timelines]
    )
    write_examples(
        folder / "Split-eval",
        [{**row, "is_target": [0] * 5 + [1] * 2, "genres": []} for row in timelines],
    )
    write_examples(
        folder / "Split-candidates",
        [
            {"item": [name], "genres": list(many_towers.genres[name]), "user": [], "age": []}
            for name in many_towers.ids
        ],
    )
    return str(folder)


@pytest.fixture(scope="session")
def many_embeddings(many_towers: KnownTowers, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The catalogue of `many_towers`, as CandidateEmbedder leaves it."""
    from components.candidate_embedder import embedding_files

    folder = tmp_path_factory.mktemp("embeddings")
    spec = many_towers.spec
    for part, rows in enumerate((slice(0, 100), slice(100, NUM_MANY))):
        names = many_towers.ids[rows]
        genres = [[genre.encode() for genre in many_towers.genres[name]] for name in names]
        raw = {
            "item": np.array([name.encode() for name in names], object),
            "genres": np.array([row + [b""] * (3 - len(row)) for row in genres], object),
        }
        writer = embedding_files.EmbeddingWriter(
            str(folder / embedding_files.file_name(part, 2)),
            embedding_files.schema(spec, DIMENSION),
        )
        writer.write(embedding_files.to_table(spec, raw, many_towers.vectors[rows]))
        writer.close()
    return embedding_files.EmbeddingFiles(str(folder), spec)
