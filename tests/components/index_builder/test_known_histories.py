"""Histories that the served model keeps, with requests that contain them as the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from components.errors import IndexRefusedError
from components.index_builder.known_histories import HistorySource, KnownHistories
from components.interactions.timelines.histories import read_queries
from serving.clients import Query, RestRetrievalClient, RetrievalClient
from serving.errors import InvalidArgumentError
from serving.launcher import running_model_server
from tests.builders import feature_spec, write_examples
from tests.components.index_builder.conftest import Served, history_source
from tests.components.index_builder.test_served_signatures import assert_same

NEWEST = 3
USERS = ["user 1", "nobody", "user 4", ""]


@pytest.fixture(scope="module")
def newest(many_towers: Any, many_examples: str) -> Mapping[str, list[str]]:
    """The newest events of each query; none of an unknown one."""
    queries = read_queries([*history_source(many_examples, NEWEST).buckets[0]], many_towers.spec)
    users = [name.decode() for name in queries.features["user"].flat_values.numpy()]
    histories = queries.histories(slice(0, len(queries)))["history"].to_list()
    events = [[event.decode() for event in row][-NEWEST:] for row in histories]
    return {user: [] for user in USERS} | dict(zip(users, events, strict=True))


@pytest.fixture(scope="module")
def folder(build: Callable[..., Any], many_examples: str, tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("served") / "7"
    _, report = build(
        folder, backend="exact", k=10, histories=history_source(many_examples, NEWEST)
    )
    kept = {"newest": NEWEST, "num_queries": 20, "num_events": 60, "megabytes": 0.0}
    assert report["known_histories"] == kept
    return folder


def test_an_id_alone_gets_the_answer_to_its_newest_events(folder: Path, newest: Any):
    served = Served(folder)
    histories = [newest[user] for user in USERS]
    for exclude_seen in (None, [True, False, True, True]):
        found = served.recommend(USERS, exclude_seen=exclude_seen)
        wanted = served.recommend(USERS, histories, exclude_seen=exclude_seen)
        for answer, expected in zip(found, wanted, strict=True):
            assert_same(answer, expected)
    assert not {name for name, _ in found[0]} & {*newest["user 1"]}


def test_a_history_in_the_request_takes_precedence_in_its_row(
    folder: Path, many_towers: Any, newest: Any
):
    given = ["item 9", "item 8", "item 7", "item 6"]
    found = Served(folder).recommend(["user 1", "user 4"], [given, []], exclude_seen=[True] * 2)
    for answer, user, events in zip(
        found, ("user 1", "user 4"), (given, newest["user 4"]), strict=True
    ):
        best = many_towers.best(many_towers.embed(user, events), events)
        assert_same(answer, best[:10])


def test_an_unknown_candidate_keeps_the_model_from_using_its_history(
    folder: Path, many_towers: Any
):
    (answer,) = Served(folder).recommend(["user 1"], [["\0no event"]])
    assert_same(answer, many_towers.best(many_towers.embed("user 1"), [])[:10])


def test_the_embedding_is_that_of_the_request_alone(folder: Path, many_towers: Any):
    # The evaluation of a served version needs queries as they were before held-out events.
    answer = Served(folder).signatures["embed_query"](
        user=tf.constant(["user 1"]), age=tf.constant([0.0]), history=tf.zeros([1, 0], tf.string)
    )
    wanted = many_towers.embed("user 1")
    np.testing.assert_allclose(answer["embedding"][0], wanted, rtol=1e-5)


def test_types_and_candidates_outside_the_index_are_kept(tmp_path: Path):
    spec = feature_spec(event_type="kind", event_types=("view", "buy"))
    rows = [
        {"user": ["a"], "item": ["x", "gone", "y"], "event_type": ["view", "buy", "other"]},
        {"user": ["b"], "item": ["y"], "event_type": ["buy"]},
    ]
    path = write_examples(tmp_path, [{**row, "is_target": [0] * len(row["item"])} for row in rows])
    ids = [b"y", b"x"]
    stored = HistorySource([[path]], 2, 1).read(spec, pa.array(ids), str(tmp_path))
    known = KnownHistories(stored, tf.Variable(ids), "user")
    filled = known.fill(
        {
            "user": tf.constant(["b", "a", "a", "c"]),
            "history": tf.constant([["", ""], ["", ""], ["x", ""], ["", ""]]),
            "history_types": tf.constant([["view"], ["view"], ["view"], ["view"]]),
        }
    )
    texts = {name: values.numpy().tolist() for name, values in filled.items()}
    assert texts["history"] == [[b"y", b""], [b"gone", b"y"], [b"x", b""], [b"", b""]]
    assert texts["history_types"] == [[b"buy", b""], [b"buy", b""], [b"view", b""], [b"", b""]]


def test_histories_above_the_limit_are_refused_without_a_model(
    build: Callable[..., Any], many_examples: str, tmp_path: Path
):
    message = (
        r"`serving.known_histories: 3` must take at most 0 MB "
        r"\(`serving.known_histories_max_mb`\), but 60 events of 20 queries take 0 MB; "
        "keep fewer events"
    )
    with pytest.raises(IndexRefusedError, match=message):
        build(
            tmp_path / "m",
            backend="exact",
            histories=history_source(many_examples, NEWEST, max_mb=0),
        )
    assert not list(tmp_path.iterdir())


def test_a_server_answers_ids_over_grpc_and_rest(folder: Path, many_towers: Any, newest: Any):
    events = newest["user 1"]
    vector = many_towers.embed("user 1", events)
    best, unseen = (
        tuple(name for name, _ in many_towers.best(vector, exclude)[:10])
        for exclude in ((), events)
    )
    with running_model_server(folder.parent, "retrieval") as server:
        for kind, target in (
            (RetrievalClient, server.grpc_target),
            (RestRetrievalClient, server.rest_url),
        ):
            with kind(target, query_id_name="user") as client:
                assert client.recommend("user 1").candidate_ids == best
                assert client.recommend("user 1", exclude_seen=True).candidate_ids == unseen
                two = client.recommend(queries=[Query("user 1", exclude_seen=True), Query("u")])
                assert two[0].candidate_ids == unseen
                with pytest.raises(InvalidArgumentError, match="exclude_seen must be a bool"):
                    client.recommend("user 1", exclude_seen="yes")
