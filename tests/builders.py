"""Builders for tests of several packages: specs, Examples, towers, projects."""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tfx.types.artifact import Artifact

import models  # noqa: F401 - chooses Keras 2 before a test imports TensorFlow
from models.features.spec import FeatureSpec
from pipeline.config.project import PipelineConfig

Row = Mapping[str, Sequence[Any]]


# A script, quotes, a template, Vega's expressions, and a letter that turns the text after it.
HOSTILE = (
    "</script><img src=x onerror=hacked()>\"'&{{7*7}}${datum.x} \N{RIGHT-TO-LEFT OVERRIDE}שלום"
)


def wait_for(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Wait until a condition holds, and return its value."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
    return found


@contextmanager
def http_server(
    handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Serve on a free port of this machine, with TLS if there is a context, and yield the port."""

    class Quiet(handler):  # type: ignore[misc, valid-type]  # the class is a value
        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Ignore clients that do not trust the certificate."""

    with Server(("127.0.0.1", 0), Quiet) as server:
        if context is not None:
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def artifact(kind: type[Artifact], uri: str | Path) -> Artifact:
    """Return an artifact whose files are at a URI."""
    made = kind()
    made.uri = str(uri)
    return made


def example(row: Row) -> bytes:
    """Serialize an Example; the type of a feature follows from its values."""
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


def write_examples(folder: Path, rows: Sequence[Row]) -> str:
    """Write rows as one file of Examples in a folder and return the file's path."""
    import tensorflow as tf

    folder.mkdir(parents=True, exist_ok=True)
    file = str(folder / "data-00000-of-00001.gz")
    with tf.io.TFRecordWriter(file, options="GZIP") as writer:
        for row in rows:
            writer.write(example(row))
    return file


def read_numbers(folder: Path) -> list[dict[str, list[float]]]:
    """Return the numbers in GZIP TFRecords of Examples by feature name, in a fixed order."""
    import tensorflow as tf

    files = [str(path) for path in sorted(folder.iterdir())]
    rows = []
    for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator():
        features = sorted(tf.train.Example.FromString(record).features.feature.items())
        rows.append({k: list(v.int64_list.value or v.float_list.value) for k, v in features})
    return sorted(rows, key=str)


def read_examples(folder: Path) -> list[bytes]:
    """Return the serialized Examples in GZIP TFRecords, sorted.

    Their features are a map, which the processes of Beam write in different orders.
    """
    import tensorflow as tf

    files = [str(path) for path in sorted(folder.iterdir())]
    records = tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()
    parsed = map(tf.train.Example.FromString, records)
    return sorted(example.SerializeToString(deterministic=True) for example in parsed)


def examples_artifact(folder: Path, **splits: Sequence[Row]) -> Artifact:
    """Write Examples by split and return their artifact."""
    from tfx.types import artifact_utils, standard_artifacts

    made = artifact(standard_artifacts.Examples, folder)
    made.split_names = artifact_utils.encode_split_names(list(splits))
    made.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    for split, rows in splits.items():
        write_examples(folder / f"Split-{split}", rows)
    return made


def blessing(kind: type[Artifact], folder: Path, blessed: bool = True, why: str = "") -> Artifact:
    """Return a ModelBlessing or InfraBlessing with the file that its component writes."""
    made = artifact(kind, folder)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "INFRA_" if kind.TYPE_NAME == "InfraBlessing" else ""
    (folder / f"{prefix}{'' if blessed else 'NOT_'}BLESSED").write_text(why)
    made.set_int_custom_property("blessed", int(blessed))
    return made


def executor_context(folder: Path, *beam_arguments: str) -> Any:
    """Return the context that TFX gives to an executor that uses Beam."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor

    return BaseBeamExecutor.Context(
        beam_pipeline_args=list(beam_arguments), tmp_dir=str(folder), unique_id="1"
    )


def write_embeddings(
    folder: Path,
    spec: FeatureSpec,
    *parts: tuple[Mapping[str, Sequence[Any]], npt.NDArray[np.float32]],
) -> Any:
    """Write raw candidates and their vectors as CandidateEmbedder does, one file for each part."""
    from components.candidate_embedder import embedding_files

    for number, (columns, vectors) in enumerate(parts):
        raw = {
            name: values
            if isinstance(values, np.ndarray)
            else np.array(values, np.float32 if isinstance(values[0], float) else object)
            for name, values in columns.items()
        }
        path = str(folder / embedding_files.file_name(number, len(parts)))
        embedding_files.write_table(path, embedding_files.to_table(spec, raw, vectors))
    return embedding_files.EmbeddingFiles(str(folder), spec)


def feature_spec(
    query: Mapping[str, Any] | None = None,
    candidate: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    **columns: Any,
) -> FeatureSpec:
    """Return a spec of users and items with these features, such as `age={"kind": "numeric"}`."""
    return FeatureSpec.model_validate(
        {
            "columns": {"query_id": "user", "candidate_id": "item", **columns},
            "features": {
                "query": query or {},
                "candidate": candidate or {},
                "context": context or {},
            },
        }
    )


@dataclass(frozen=True)
class KnownTowers:
    """Towers whose embeddings can be computed by hand.

    A candidate's embedding is its row of `vectors`. A query's embedding is that of its ID in
    `queries`, plus the mean over its known history, plus its age times `age_direction`. Unknown
    IDs add nothing.
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
        """Return all allowed candidates with their scores, best first: the oracle for indexes."""
        scores = self.vectors @ query
        return [
            (self.ids[index], float(scores[index]))
            for index in np.argsort(-scores, kind="stable")
            if self.ids[index] not in exclude
            and (not genres or set(genres) & set(self.genres[self.ids[index]]))
        ]


KNOWN_SPEC = feature_spec(
    query={"age": {"kind": "numeric"}},
    candidate={"genres": {"kind": "categorical", "separator": "|"}},
)


# The same with features that only answers contain.
RETURNED = {"title": {"kind": "text", "learn": False}, "price": {"kind": "numeric", "learn": False}}
DESCRIBED_SPEC = feature_spec(
    query={"age": {"kind": "numeric"}},
    candidate={"genres": {"kind": "categorical", "separator": "|"}, **RETURNED},
)


def title_and_price(name: str) -> tuple[str, float]:
    """Return the values of a candidate; some are missing."""
    title = "" if len(name) % 3 == 0 else f"{name}, the “best”\n"
    return title, math.nan if name.endswith("7") else len(name) / 4


GENRES = ("drama", "comedy", "é noir")


def _genres(index: int) -> list[str]:
    """Return genres of different frequency; one candidate in three has none."""
    found = {"drama": index % 2 == 0, "comedy": index % 3 == 0, "é noir": index % 75 == 3}
    return [genre for genre, has in found.items() if has]


def export_known_towers(
    directory: str,
    vectors_by_id: Mapping[str, Sequence[float]],
    queries: Mapping[str, Sequence[float]] | None = None,
    spec: FeatureSpec = KNOWN_SPEC,
) -> KnownTowers:
    """Save towers with the signatures of `models.towers.export`."""
    import tensorflow as tf

    from models.input.raw_inputs import candidate_inputs, query_inputs, same_batch
    from models.towers.export import TRANSFORM_CANDIDATE, TRANSFORM_QUERY, save_towers

    ids = list(vectors_by_id)
    vectors = np.array(list(vectors_by_id.values()), np.float32)
    known = {name: np.array(values, np.float32) for name, values in (queries or {}).items()}
    genres = {name: _genres(index) for index, name in enumerate(ids)}
    towers = KnownTowers(directory, spec, ids, vectors, genres, known)

    def table(keys: Sequence[str]) -> Any:
        indices = tf.range(len(keys), dtype=tf.int64)
        initializer = tf.lookup.KeyValueTensorInitializer(
            tf.constant(list(keys), tf.string), indices
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

        def transform_query(self, **inputs: Any) -> dict[str, Any]:
            rows = same_batch(inputs)
            user = tf.cast(self.query_index.lookup(rows["user"]), tf.int32)
            return {"user": user[:, None], "age": rows["age"][:, None]}

        def transform_candidate(self, **inputs: Any) -> dict[str, Any]:
            rows = same_batch(inputs)
            item = tf.cast(self.candidate_index.lookup(rows["item"]), tf.int32)
            found = [tf.where(rows["genres"] == genre, n, -1) for n, genre in enumerate(GENRES)]
            return {"item": item[:, None], "genres": tf.reduce_max(found, axis=0)}

    module = Towers()
    query, candidate = query_inputs(spec), candidate_inputs(spec)
    query = {name: query[name] for name in ("user", "age")}
    candidate_features = {name: candidate[name] for name in ("item", "genres")}
    more = {
        TRANSFORM_QUERY: (module.transform_query, query),
        TRANSFORM_CANDIDATE: (module.transform_candidate, candidate_features),
    }
    save_towers(module, spec, module.embed_query, module.embed_candidate, directory, more)
    return towers


def ranking_tables(timelines: Sequence[Sequence[int]], num_candidates: int) -> Any:
    """Count timelines of candidate indices, whose events happen one after the other."""
    from models.ranking.tables import RankingTables, TrainingEvents

    lengths = [len(timeline) for timeline in timelines]
    candidates = np.array([event for timeline in timelines for event in timeline], np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return RankingTables.count(
        TrainingEvents(candidates, np.arange(len(candidates)), offsets), num_candidates
    )


def add_ranking_stage(
    towers: KnownTowers,
    timelines: Sequence[Sequence[int]],
    weights: Mapping[str, float],
    *,
    exclude_seen: bool = False,
    successors: int = 0,
    num_candidates: int = 5,
    rated: bool = False,
) -> None:
    """Add a linear ranking stage to saved towers: a score is a weighted sum of the features.

    `timelines` are the training events as indices of the candidates. `weights` may have `age` and
    genres, of which a candidate has the mean. With `rated`, there is a task `rating`: 3 plus a
    hundredth of the index of the candidate.
    """
    from models.features.preprocessing import SPACE_IN_ID
    from models.ranking.config import RankingConfig
    from models.ranking.estimates import Estimates
    from models.ranking.features import feature_names
    from models.ranking.ranker import Ranker
    from models.ranking.saved_stage import StageSettings, save_stage
    from models.ranking.tasks import Task, TaskFeatures

    tasks = (Task(name="rating", high=100.0),) if rated else ()
    number = len(towers.ids)
    of_candidates = np.append(np.arange(number) / 100, 0.0)[:, None].astype(np.float32)
    estimates = {"rating": Estimates(3.0, np.zeros((1, 1), np.float32), of_candidates)}
    names = feature_names(repeats=not exclude_seen)
    names += TaskFeatures(tasks, estimates, towers.spec.query_id).names
    declared = {"age": 0, "genres": len(GENRES)}
    ranker = Ranker(RankingConfig(model="linear"), names, KNOWN_SPEC.features, declared, tasks)
    # The ranker clips large z-scores, so the deviations are large.
    deviation = 100.0
    mean, scale, kernel, *corrections = ranker.network.get_weights()
    kernel[:] = 0.0
    for name, columns in ranker.columns.items():
        kernel[columns.start] = deviation * (name in declared or weights.get(name, 0.0))
    ranker.network.set_weights([mean, np.full_like(scale, 1 / deviation), kernel, *corrections])
    of_age, of_genres = (of.trainable_variables for of in (ranker.of_queries, ranker.of_candidates))
    of_age[0].assign(np.full(of_age[0].shape, weights.get("age", 0.0)))
    genres = [[weights.get(genre, 0.0)] * of_genres[0].shape[1] for genre in GENRES]
    of_genres[0].assign(genres)
    settings = StageSettings(
        model="linear",
        num_candidates=num_candidates,
        exclude_seen=exclude_seen,
        successors=successors,
        features=names,
        declared=declared,
        tasks=tasks,
    )
    save_stage(towers.directory, settings, ranking_tables(timelines, number), estimates, ranker)
    assets = Path(towers.directory) / "assets"
    assets.mkdir(exist_ok=True)
    # As in a vocabulary of Transform, in which another character replaces the spaces of IDs.
    lines = [f"1 {name.replace(' ', SPACE_IN_ID)}\n" for name in towers.ids]
    (assets / "item").write_text("".join(lines))


def project(folder: Path, *overrides: str, **sections: Any) -> PipelineConfig:
    """Write the two clubs to a folder and return their configuration; the run folder exists.

    Args:
        folder: Folder for the project.
        *overrides: Settings such as `training.epochs=3`, as with `--set`.
        **sections: See `write_two_clubs`.
    """
    from pipeline.config.file import load
    from tests.pipeline.two_clubs import write_two_clubs

    config = load(str(write_two_clubs(folder, **sections)), overrides)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    return config


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
