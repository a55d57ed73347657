"""Small retrieval models with the served contract's signatures, and servers for them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.launcher import RunningModelServer, running_model_server

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

K = 3
CANDIDATES = ["a", "b", "c", "d", "ε→漢"]
# Scores of the candidates, by query; "" means a query that the model does not know.
SCORES = {
    "": [5.0, 4.0, 3.0, 2.0, 1.0],
    "u1": [1.0, 2.0, 3.0, 4.0, 0.5],
    "ü→1": [0.25, 0.0, 0.0, 0.0, 9.75],
}
NAN = float("nan")


def export_model(path: Path, *, bias: float = 0.0) -> None:
    """Write a SavedModel that answers from `SCORES`.

    A candidate in the history scores 10 less, a candidate in `exclude` never comes back, `age`
    (NaN: unknown) and `bias` are added to all scores; `title` and `country` are accepted and
    unused but for their batch dimension.
    """
    import tensorflow as tf

    known = list(SCORES)

    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            initializer = tf.lookup.KeyValueTensorInitializer(
                tf.constant(known), tf.range(len(known), dtype=tf.int64)
            )
            self.table = tf.lookup.StaticHashTable(initializer, 0)
            self.scores = tf.Variable([SCORES[query] for query in known])
            self.candidates = tf.constant(CANDIDATES)
            self.bias = tf.Variable(bias)

        def top_k(self, scores: Any) -> dict[str, Any]:
            values, indices = tf.math.top_k(scores, K)
            return {
                "candidate_ids": tf.ensure_shape(tf.gather(self.candidates, indices), [None, K]),
                "scores": tf.ensure_shape(values, [None, K]),
            }

        def score(self, user_id: Any, age: Any, country: Any, title: Any, history: Any) -> Any:
            scores = tf.gather(self.scores, self.table.lookup(user_id)) + self.bias
            scores += tf.where(tf.math.is_nan(age), 0.0, age)[:, tf.newaxis]
            seen = tf.reduce_any(history[:, :, tf.newaxis] == self.candidates, axis=1)
            unused = tf.strings.length(country) + tf.reduce_sum(tf.strings.length(title), axis=1)
            scores += 0.0 * tf.cast(unused, tf.float32)[:, tf.newaxis]
            return scores - 10.0 * tf.cast(seen, tf.float32)

    model = Model()

    def recommend(**inputs: Any) -> Any:
        return model.top_k(model.score(**inputs))

    def recommend_excluding(exclude: Any, **inputs: Any) -> Any:
        excluded = tf.reduce_any(exclude[:, :, tf.newaxis] == model.candidates, axis=1)
        return model.top_k(tf.where(excluded, -1000.0, model.score(**inputs)))

    def similar_candidates(movie_id: Any) -> Any:
        same = tf.cast(movie_id[:, tf.newaxis] == model.candidates, tf.float32)
        return model.top_k(same * 2.0 - tf.range(5.0) / 3.0)

    def embed_query(**inputs: Any) -> Any:
        return {"embedding": tf.ensure_shape(model.score(**inputs)[:, :2], [None, 2])}

    def embed_candidate(movie_id: Any, year: Any) -> Any:
        length = tf.cast(tf.strings.length(movie_id), tf.float32)
        return {"embedding": tf.stack([length, year], axis=1)}

    def odd(movie_id: Any) -> Any:
        return {"id_bytes": tf.expand_dims(movie_id, 1), "total": tf.constant([1.5e6, NAN, -0.1])}

    def repeat(text: Any, count: Any) -> Any:
        repeated = tf.repeat(text, tf.cast(count, tf.int32))
        return {"text": tf.reshape(repeated, [tf.shape(text)[0], -1])}

    def scalars(movie_id: Any) -> Any:
        return {"first": movie_id[0], "half": tf.constant(0.5)}

    text, texts = ([None], tf.string), ([None, None], tf.string)
    number, integer = ([None], tf.float32), ([None], tf.int64)
    query = {"user_id": text, "age": number, "country": text, "title": texts, "history": texts}
    signatures = {
        "serving_default": (recommend, query),
        "recommend_excluding": (recommend_excluding, {**query, "exclude": texts}),
        "similar_candidates": (similar_candidates, {"movie_id": text}),
        "embed_query": (embed_query, query),
        "embed_candidate": (embed_candidate, {"movie_id": text, "year": number}),
        "odd": (odd, {"movie_id": text}),
        "repeat": (repeat, {"text": text, "count": integer}),
        "scalars": (scalars, {"movie_id": text}),
    }
    functions = {
        signature: tf.function(function, autograph=False).get_concrete_function(
            **{name: tf.TensorSpec(*spec, name) for name, spec in inputs.items()}
        )
        for signature, (function, inputs) in signatures.items()
    }
    tf.saved_model.save(model, str(path), signatures=functions)
    add_defaults(path, ["serving_default", "recommend_excluding"])


def add_defaults(path: Path, signatures: list[str]) -> None:
    """Give every input of `signatures` a default of batch size 1."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for name in signatures:
        definition = saved_model.meta_graphs[0].signature_def[name]
        for alias, info in definition.inputs.items():
            if info.dtype == tf.float32.as_datatype_enum:
                default = tf.make_tensor_proto([NAN], tf.float32)
            elif len(info.tensor_shape.dim) == 2:
                default = tf.make_tensor_proto([], tf.string, shape=[1, 0])
            else:
                default = tf.make_tensor_proto([""], tf.string)
            definition.defaults[alias].CopyFrom(default)
    file.write_bytes(saved_model.SerializeToString())


@pytest.fixture(scope="session")
def exported_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version's folder, to be copied and never to be changed."""
    path = tmp_path_factory.mktemp("exported") / "model"
    export_model(path)
    return path


def export_slow_model(path: Path) -> None:
    """Write a model that counts to `rounds`, about five microseconds each."""

    import tensorflow as tf

    class Slow(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "rounds")])
        def count(self, rounds: Any) -> Any:
            counted = tf.while_loop(
                lambda done: done < rounds[0], lambda done: (done + 1,), (tf.constant(0, tf.int64),)
            )
            return {"counted": tf.reshape(counted[0], [1])}

    model = Slow()
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.count})


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version's folder, alone in its base path."""
    path = tmp_path_factory.mktemp("slow") / "1"
    export_slow_model(path)
    return path


@pytest.fixture(scope="session")
def install_version(exported_model: Path) -> Callable[[Path, int], Path]:
    """Put the model into a base path as a version, whole or not at all."""

    def install(base_path: Path, version: int) -> Path:
        aside = base_path / f"{version}.incoming"
        shutil.copytree(exported_model, aside)
        return aside.rename(base_path / str(version))

    return install


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority `ca`, and `server` and `client` signed by it, as PEM files with their keys."""
    folder = tmp_path_factory.mktemp("certificates")
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    signed = ["-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key")]
    for name in ("ca", "server", "client"):
        command = [
            *new, "-nodes", "-keyout", str(folder / f"{name}.key"),
            "-out", str(folder / f"{name}.pem"), "-subj", f"/CN={name}",
            "-addext", "subjectAltName=DNS:retrieval.test,IP:127.0.0.1",
            *(signed if name != "ca" else ("-addext", "keyUsage=critical,keyCertSign")),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, install_version: Callable[[Path, int], Path]
) -> Iterator[RunningModelServer]:
    """A server for version 1 of the model `retrieval`, for tests that do not change it."""
    base_path = tmp_path_factory.mktemp("served")
    install_version(base_path, 1)
    with running_model_server(base_path, "retrieval") as running:
        yield running
