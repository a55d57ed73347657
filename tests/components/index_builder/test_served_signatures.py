"""The contract of the served signatures for every backend, with exact search as the oracle."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf import config_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from models.input.raw_inputs import candidate_inputs, query_inputs
from serving.errors import InvalidArgumentError
from serving.server import loaded_model
from tests.components.index_builder.conftest import Served

K = 10
CONTRACT = (
    "serving_default",
    "recommend_excluding",
    "similar_candidates",
    "embed_query",
    "embed_candidate",
)
LEAST = float(np.finfo(np.float32).min)
Answer = list[tuple[str, float]]
# The same test runs for each backend.
PROPERTY = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.differing_executors],
)
GENRES = ["drama", "comedy", "é noir", "opera"]


@dataclass(frozen=True)
class Request:
    """A user, allowed genres, and the number of another user's best candidates to exclude."""

    user: int
    genres: list[str]
    liked_by: int
    num_excluded: int

    def excluded(self, towers: Any) -> list[str]:
        best = towers.best(towers.embed(f"user {self.liked_by}"))
        return [*(name for name, _ in best[: self.num_excluded]), "", "no such item"]


REQUESTS = st.builds(
    Request,
    user=st.integers(0, 19),
    genres=st.lists(st.sampled_from(GENRES), max_size=3),
    liked_by=st.integers(0, 19),
    num_excluded=st.one_of(st.integers(0, 12), st.integers(0, 300)),
)


def assert_same(actual: Answer, expected: Answer) -> None:
    assert [name for name, _ in actual] == [name for name, _ in expected]
    np.testing.assert_allclose(
        [score for _, score in actual], [score for _, score in expected], rtol=1e-4, atol=1e-5
    )


def saved_graph(folder: Path) -> Any:
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0]


class RetrievalModelContract:
    """Tests that each backend inherits, with settings that make its search exact."""

    index: dict[str, Any]

    @pytest.fixture(scope="class")
    def folder(self, build: Callable[..., Any]) -> Path:
        return build(k=K, **self.index)[0]

    @pytest.fixture(scope="class")
    def served(self, folder: Path) -> Served:
        return Served(folder)

    def test_recommends_what_brute_force_finds_in_any_batch(self, served: Served, many_towers: Any):
        users = [*many_towers.queries, "nobody"]
        history = [["unknown", *many_towers.ids[:index]] for index in range(len(users))]
        ages = [float("nan") if index % 3 else 0.5 * index for index in range(len(users))]
        rows = list(zip(users, history, ages, served.recommend(users, history, ages), strict=True))
        for user, events, age, answer in rows:
            assert_same(answer, many_towers.best(many_towers.embed(user, events, age))[:K])
        assert_same(
            served.recommend(["user 0"])[0], many_towers.best(many_towers.embed("user 0"))[:K]
        )

    def test_an_empty_batch_gets_an_empty_response(self, served: Served):
        empty = {"user": tf.zeros([0], tf.string), "history": tf.zeros([0, 0], tf.string)}
        empty["age"] = tf.zeros([0])
        assert served.signatures["serving_default"](**empty)["scores"].shape == (0, K)
        excluding = served.signatures["recommend_excluding"]
        answer = excluding(
            **empty,
            exclude=tf.zeros([0, 2], tf.string),
            exclude_seen=tf.zeros([0], tf.bool),
            allow_genres=tf.zeros([0, 1], tf.string),
        )
        assert answer["candidate_ids"].shape == (0, K)
        assert served.similar([]) == []

    def test_a_tensor_of_another_rank_is_refused(self, folder: Path):
        # TensorFlow itself does not check the shapes that a server feeds.
        model = loaded_model.load(folder, 1, config_pb2.ConfigProto())
        try:
            for name in CONTRACT:
                signature = model.signatures[name]
                shapes = signature.definition.inputs
                good = [
                    np.zeros([2] * len(shapes[info.alias].tensor_shape.dim), info.dtype)
                    for info in signature.inputs
                ]
                good = [np.full(a.shape, b"", a.dtype) if a.dtype == object else a for a in good]
                signature.compute(good, signature.outputs)
                for index, array in enumerate(good):
                    for wrong in (array[..., None], array[0]):
                        feeds = [*good[:index], np.asarray(wrong), *good[index + 1 :]]
                        with pytest.raises(InvalidArgumentError, match="not compatible with"):
                            signature.compute(feeds, signature.outputs)
        finally:
            model.close()

    def test_an_unknown_query_gets_k_different_candidates_and_scores(self, served: Served):
        answer = served.recommend(["\N{SNOWMAN} nobody"])[0]
        assert len({name for name, _ in answer} - {""}) == K
        assert np.all(np.isfinite([score for _, score in answer]))

    @pytest.mark.parametrize("exclude", [[], ["a b", "a b", "", "unknown", "a b"]])
    def test_exclusions_and_filters_may_be_empty_repeated_or_unknown(
        self, served: Served, many_towers: Any, exclude: list[str]
    ):
        expected = many_towers.best(many_towers.embed("user 2"), exclude)[:K]
        assert_same(served.recommend(["user 2"], exclude=[exclude])[0], expected)
        assert_same(served.recommend(["user 2"], exclude=[exclude], genres=[["", ""]])[0], expected)

    def test_nothing_is_similar_to_an_unknown_candidate(self, served: Served, many_towers: Any):
        unknown, known = served.similar(["no such item", "item 5"])
        assert unknown == [("", LEAST)] * K
        assert known[0][0] != ""

    @PROPERTY
    @given(requests=st.lists(REQUESTS, min_size=1, max_size=3))
    def test_exclusions_and_filters_give_what_exact_search_gives(
        self, served: Served, many_towers: Any, requests: list[Request]
    ):
        answers = served.recommend(
            [f"user {request.user}" for request in requests],
            exclude=[request.excluded(many_towers) for request in requests],
            genres=[request.genres for request in requests],
        )
        for request, answer in zip(requests, answers, strict=True):
            query = many_towers.embed(f"user {request.user}")
            expected = many_towers.best(query, request.excluded(many_towers), request.genres)
            assert_same(answer[: len(expected)], expected[:K])
            assert answer[len(expected) :] == [("", LEAST)] * (K - len(expected))

    @PROPERTY
    @given(
        indices=st.lists(st.integers(0, 299), min_size=1, max_size=3),
        genres=st.lists(st.sampled_from(GENRES), max_size=2),
    )
    def test_similar_candidates_can_be_filtered(
        self, served: Served, many_towers: Any, indices: list[int], genres: list[str]
    ):
        ids = [many_towers.ids[index] for index in indices]
        for index, answer in zip(indices, served.similar(ids, [genres] * len(ids)), strict=True):
            own, vector = many_towers.ids[index], many_towers.vectors[index]
            expected = many_towers.best(vector, [own], genres)
            assert_same(answer[: len(expected)], expected[:K])
            assert answer[len(expected) :] == [("", LEAST)] * (K - len(expected))

    def test_several_values_of_a_field_are_joined(self, served: Served, many_towers: Any):
        answer = served.signatures["similar_candidates"](
            item=tf.constant(["a b"]), allow_genres=tf.constant([["comedy"]])
        )
        names = [name.decode() for name in answer["candidate_ids"][0].numpy()]
        genres = [value.decode() for value in answer["genres"][0].numpy()]
        assert genres == ["|".join(many_towers.genres[name]) for name in names]
        assert any("|" in value for value in genres)

    def test_embeddings_are_those_of_the_towers(self, served: Served, many_towers: Any):
        query = served.signatures["embed_query"](
            user=tf.constant(["user 9"]), age=tf.constant([0.5]), history=tf.constant([["товар 1"]])
        )
        np.testing.assert_allclose(
            query["embedding"][0], many_towers.embed("user 9", ["товар 1"], 0.5), rtol=1e-5
        )
        candidate = served.signatures["embed_candidate"](
            item=tf.constant(["🎬"]), genres=tf.constant([["x"]])
        )
        np.testing.assert_allclose(
            candidate["embedding"][0], many_towers.vectors[many_towers.ids.index("🎬")], rtol=1e-5
        )

    @pytest.mark.parametrize(
        "name", ["serving_default", "recommend_excluding", "similar_candidates"]
    )
    def test_only_the_number_of_candidates_is_a_static_shape(self, served: Served, name: str):
        _, inputs = served.signatures[name].structured_input_signature
        if "allow_genres" in inputs:
            assert inputs["allow_genres"].shape.as_list() == [None, None]
        outputs = served.signatures[name].structured_outputs
        assert outputs["candidate_ids"].shape.as_list() == [None, K]
        assert outputs["candidate_ids"].dtype == tf.string
        assert outputs["scores"].shape.as_list() == [None, K]
        assert outputs["scores"].dtype == tf.float32

    def test_every_input_of_every_signature_has_a_default(self, folder: Path, many_towers: Any):
        signatures = saved_graph(folder).signature_def
        assert {name for name in signatures if not name.startswith("__")} == set(CONTRACT)
        query = set(query_inputs(many_towers.spec))
        candidate = set(candidate_inputs(many_towers.spec))
        assert {name: set(signatures[name].defaults) for name in CONTRACT} == {
            "serving_default": query,
            "recommend_excluding": query | {"exclude", "exclude_seen", "allow_genres"},
            "similar_candidates": {"item", "allow_genres"},
            "embed_query": query,
            "embed_candidate": candidate,
        }

    def test_defaults_fill_in_missing_inputs(self, folder: Path, served: Served):
        # The server fills in missing inputs with one row for the whole batch.
        signature = saved_graph(folder).signature_def["recommend_excluding"]
        defaults = {
            name: tf.constant(tf.make_ndarray(value)) for name, value in signature.defaults.items()
        }
        users = ["user 1", "user 2", "user 3"]
        answer = served.signatures["recommend_excluding"](
            **{**defaults, "user": tf.constant(users)}
        )
        expected = served.recommend(users)
        ids = [[name.decode() for name in row] for row in answer["candidate_ids"].numpy()]
        assert ids == [[name for name, _ in row] for row in expected]

    def test_warm_up_requests_replay(self, folder: Path, served: Served):
        file = folder / "assets.extra" / "tf_serving_warmup_requests"
        logs = [
            prediction_log_pb2.PredictionLog.FromString(record.numpy())
            for record in tf.data.TFRecordDataset(str(file))
        ]
        names = [log.predict_log.request.model_spec.signature_name for log in logs]
        assert set(names) == set(served.signatures)
        assert names.count("recommend_excluding") == 2  # with a filter and without
        for log in logs:
            request = log.predict_log.request
            assert request.model_spec.name == "retrieval"
            inputs = {
                name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()
            }
            signature = served.signatures[request.model_spec.signature_name]
            assert set(inputs) == set(signature.structured_input_signature[1])
            answer = signature(**inputs)
            if "embedding" in answer:
                assert np.any(answer["embedding"].numpy())
            else:
                assert answer["candidate_ids"].numpy()[0, 0] != b""

    def test_a_small_catalogue_is_returned_whole(self, build: Callable[..., Any], many_towers: Any):
        settings = {**self.index, "k": 1000}
        if "reorder" in settings:
            settings["reorder"] = 1000
        folder, report = build(**settings)
        assert report["k"] == len(many_towers.ids)
        served = Served(folder)
        query = many_towers.embed("user 8")
        assert_same(served.recommend(["user 8"])[0], many_towers.best(query))
        without = served.recommend(["user 8"], exclude=[["a b"]])[0]
        assert_same(without[:-1], many_towers.best(query, ["a b"]))
        assert without[-1] == ("", LEAST)
        # All but the candidate itself, and one empty position.
        assert served.similar(["a b"])[0][-1] == ("", LEAST)


class CoreOperationsContract(RetrievalModelContract):
    """Tests of the backends that a stock TensorFlow Serving can load."""

    def test_contains_no_scann_operation(self, folder: Path):
        graph = saved_graph(folder).graph_def
        nodes = [*graph.node, *(node for body in graph.library.function for node in body.node_def)]
        assert nodes
        assert not [node.op for node in nodes if "scann" in node.op.lower()]

    @pytest.mark.slow
    def test_answers_in_a_process_without_scann(self, folder: Path):
        script = (
            "import sys, tensorflow as tf\n"
            f"signatures = tf.saved_model.load({str(folder)!r}).signatures\n"
            "answer = signatures['serving_default'](user=tf.constant(['user 1']),"
            " history=tf.zeros([1, 0], tf.string), age=tf.constant([1.0]))\n"
            f"assert answer['scores'].shape == (1, {K})\n"
            "assert not [name for name in sys.modules if name.startswith('scann')]\n"
        )
        environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
        subprocess.run([sys.executable, "-c", script], check=True, env=environment)


class TestExact(CoreOperationsContract):
    index = {"backend": "exact"}


class TestPartitioned(CoreOperationsContract):
    # Searching all leaves is exact.
    index = {"backend": "partitioned", "leaves": 8, "leaves_to_search": 8}


class TestScann(RetrievalModelContract):
    # Searching all leaves and rescoring everything is exact.
    index = {"backend": "scann", "leaves": 8, "leaves_to_search": 8, "reorder": 300}
