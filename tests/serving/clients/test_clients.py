"""The contract of every client, against a real server."""

from __future__ import annotations

import abc
import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from serving.clients import (
    AsyncRetrievalClient,
    Embedding,
    Query,
    Recommendations,
    RestRetrievalClient,
    RetrievalClient,
    TensorSpec,
    TlsOptions,
    VersionStatus,
)
from serving.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from serving.launcher import RunningModelServer


class ClientContract(abc.ABC):
    """The tests of every client. Subclasses make one and say if its answers have a version."""

    has_version = True

    @abc.abstractmethod
    def make_client(self, server: RunningModelServer, **options: Any) -> Any: ...

    @property
    def version(self) -> int | None:
        return 1 if self.has_version else None

    @pytest.fixture
    def client(self, server: RunningModelServer) -> Iterator[Any]:
        with self.make_client(server, query_id_name="user_id") as made:
            yield made

    def test_recommends_for_one_query(self, client: Any) -> None:
        answer = client.recommend("u1", history=["c"], features={"age": 0.5, "country": "NL"}, k=2)
        assert answer == Recommendations(("d", "b"), (4.5, 2.5), self.version)
        # By default, it returns as many as the model.
        assert client.recommend("u1").candidate_ids == ("d", "c", "b")

    @pytest.mark.parametrize(
        "make",
        [
            tuple,
            iter,
            deque,
            np.array,
            lambda names: np.array(names, object),
            lambda names: np.array([name.encode() for name in names]),
            lambda names: pd.Series(names, index=[7, 9]),
            pa.array,
        ],
    )
    def test_lists_may_be_any_iterables(self, client: Any, make: Callable[..., Any]) -> None:
        features = {"age": np.float32(0.5), "title": np.array(["x"]), "country": None}
        query = Query(np.str_("u1"), make(["c", "b"]), features, exclude=pd.Series(["d"]))
        expected = client.recommend(
            "u1", history=["c", "b"], features={"age": 0.5, "title": ["x"]}, exclude=["d"], k=2
        )
        assert client.recommend(queries=np.array([query, None])[:1], k=np.int64(2)) == [expected]
        answer = client.recommend(
            "u1", history=make(["c", "b"]), features=features, exclude=make(["d", "d"]), k=2
        )
        assert answer == expected

    def test_none_means_not_given(self, client: Any) -> None:
        answer = client.recommend(
            None, history=None, features=None, exclude=None, filters=None, queries=None, k=None
        )
        assert answer == client.recommend()
        assert client.embed_query(None, history=None, features={"age": None}).values == (5.0, 4.0)
        length, year = client.embed_candidate("abc", features={"year": None}).values
        assert (length, math.isnan(year)) == (3.0, True)

    def test_an_empty_filter_is_no_filter(self, client: Any) -> None:
        filters = {"genres": [], "country": None, "year": np.array([])}
        assert client.recommend("u1", filters=filters) == client.recommend("u1")
        assert client.similar(candidate_ids=iter("ab"), filters=filters, k=1) == client.similar(
            candidate_ids=["a", "b"], k=1
        )

    @pytest.mark.parametrize(
        "arguments",
        [
            *({"query_id": value} for value in ("\ud800", b"\xff", 7, ["u1"], np.array([1, 2]))),
            *(
                {"history": value}
                for value in ("c", 7, {"c": 1}, ["c", None], [["c"]], ["\udfff!"])
            ),
            *({"features": {"age": value}} for value in (math.inf, 1e300, 10**5000, "7", [1.0])),
            {"features": [("age", 1.0)]},
            {"features": {1: 1.0}},
            {"filters": {"genres": "x"}},
            *({"k": value} for value in (-1, 2.0, "2", True, math.nan, 10**30)),
            {"queries": "u1"},
            {"queries": [None]},
            {"timeout_s": "1"},
            *({"timeout_s": value} for value in (math.inf, -(10**400))),
        ],
    )
    def test_invalid_values_are_refused_by_the_documented_class(
        self, client: Any, arguments: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidArgumentError):
            client.recommend(**arguments)

    def test_recommends_for_a_batch(self, client: Any) -> None:
        queries = [Query("u1", ["d", "c"]), Query("ü→1", features={"title": ["a", "b"]}), Query()]
        answers = client.recommend(queries=queries, k=1)
        assert [answer.candidate_ids for answer in answers] == [("b",), ("ε→漢",), ("a",)]
        assert answers[2].scores == (5.0,)

    def test_an_empty_batch_is_answered_with_nothing(self, client: Any) -> None:
        assert client.recommend(queries=[]) == []
        assert client.similar(candidate_ids=[]) == []

    def test_excluded_candidates_are_not_returned(self, client: Any) -> None:
        answer = client.recommend("ü→1", exclude=["ε→漢", "nowhere"], k=1)
        assert answer.candidate_ids == ("a",)
        answers = client.recommend(queries=[Query("u1", exclude=["d", "c"]), Query("u1")], k=1)
        assert [answer.candidate_ids for answer in answers] == [("b",), ("d",)]

    def test_similar_candidates(self, client: Any) -> None:
        answers = client.similar(candidate_ids=["a", "b"], k=1)
        assert [answer.candidate_ids for answer in answers] == [("a",), ("b",)]
        assert client.similar("b", k=2).candidate_ids == ("b", "a")

    def test_embeddings(self, client: Any) -> None:
        assert client.embed_query("u1") == Embedding((1.0, 2.0), self.version)
        embedding = client.embed_candidate("abc", features={"year": 1995})
        assert embedding == Embedding((3.0, 1995.0), self.version)
        embeddings = client.embed_queries([Query("u1"), Query()])
        assert [embedding.values for embedding in embeddings] == [(1.0, 2.0), (5.0, 4.0)]
        assert client.embed_queries([]) == []

    def test_k_beyond_the_models_is_refused_with_the_reason(self, client: Any) -> None:
        with pytest.raises(InvalidArgumentError, match=r"k must be at most 3.*got 4"):
            client.recommend("u1", k=4)
        with pytest.raises(InvalidArgumentError, match="k must be at least 1, got 0"):
            client.similar("a", k=0)

    def test_one_query_or_many_but_not_both(self, client: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="not both"):
            client.recommend("u1", queries=[Query("u2")])
        with pytest.raises(InvalidArgumentError, match="either"):
            client.similar()

    def test_metadata_has_names_types_and_shapes(self, client: Any) -> None:
        metadata = client.metadata()
        signature = metadata.signatures["recommend_excluding"]
        assert metadata.model_version == 1
        assert signature.inputs["exclude"] == TensorSpec("string", (None, None))
        assert signature.inputs["age"] == TensorSpec("float", (None,))
        assert signature.outputs["scores"] == TensorSpec("float", (None, 3))
        assert client.metadata() is metadata
        assert client.metadata(refresh=True) == metadata

    def test_status(self, client: Any) -> None:
        (row,) = client.status()
        assert row == VersionStatus(1, "AVAILABLE", "OK", "")
        assert row.is_available

    def test_the_candidate_id_needs_no_name(self, server: RunningModelServer) -> None:
        with self.make_client(server) as client:
            assert client.embed_candidate("abc", features={"year": 1}).values == (3.0, 1.0)

    def test_a_version_may_be_pinned(self, server: RunningModelServer) -> None:
        with self.make_client(server, query_id_name="user_id", model_version=1) as client:
            assert client.recommend("u1").model_version == 1
        with (
            self.make_client(server, model_version=2) as client,
            pytest.raises(NotFoundError, match=r"Specific\(retrieval, 2\)"),
        ):
            client.recommend("u1")

    def test_a_version_and_a_label_exclude_each_other(self, server: RunningModelServer) -> None:
        with pytest.raises(InvalidArgumentError, match=r"at most one of.*got 1 and 'stable'"):
            self.make_client(server, model_version=1, version_label="stable")

    @pytest.mark.parametrize(
        "options", [{"model_version": 1.5}, {"model_version": -1}, {"model_name": "\ud800"}]
    )
    def test_invalid_options_are_refused(
        self, server: RunningModelServer, options: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidArgumentError):
            self.make_client(server, **options)

    def test_a_feature_that_the_model_lacks_is_refused(self, client: Any) -> None:
        for _ in range(2):  # the signatures are learned before the first, and looked up again
            with pytest.raises(InvalidArgumentError, match="no feature 'agee'; did you mean 'age'"):
                client.recommend("u1", features={"agee": 1.0})

    def test_an_unknown_model_is_not_found(self, server: RunningModelServer) -> None:
        with (
            self.make_client(server, model_name="foo") as client,
            pytest.raises(NotFoundError, match=r"Servable not found for request: Latest\(foo\)"),
        ):
            client.recommend("u1")

    def test_no_server_is_unavailable(self) -> None:
        gone = RunningModelServer("127.0.0.1:1", "http://127.0.0.1:1", 0, None)  # type: ignore[arg-type]
        with self.make_client(gone) as client, pytest.raises(UnavailableError):
            client.status()

    def test_too_little_time_is_a_deadline(self, server: RunningModelServer) -> None:
        with (
            self.make_client(server, timeout_s=1e-9) as client,
            pytest.raises(DeadlineExceededError),
        ):
            client.status()

    def test_a_call_may_have_its_own_timeout(self, client: Any) -> None:
        assert client.recommend("u1", timeout_s=5.0).candidate_ids
        with pytest.raises(DeadlineExceededError):
            client.recommend("u1", timeout_s=1e-9)


class TestRetrievalClient(ClientContract):
    def make_client(self, server: RunningModelServer, **options: Any) -> RetrievalClient:
        return RetrievalClient(server.grpc_target, **options)


class Awaited:
    """An asyncio client, each of whose calls is awaited on an event loop of its own."""

    def __init__(self, make: Callable[[], AsyncRetrievalClient]) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self._client = self._loop.run_until_complete(self._made(make))
        except BaseException:
            self._loop.close()
            raise

    @staticmethod
    async def _made(make: Callable[[], AsyncRetrievalClient]) -> AsyncRetrievalClient:
        return make()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._loop.run_until_complete(method(*args, **kwargs))


class TestAsyncRetrievalClient(ClientContract):
    def make_client(self, server: RunningModelServer, **options: Any) -> Any:
        return Awaited(lambda: AsyncRetrievalClient(server.grpc_target, **options))

    def test_many_calls_run_at_once(self, server: RunningModelServer) -> None:
        async def ask_all() -> list[Recommendations]:
            async with AsyncRetrievalClient(server.grpc_target, query_id_name="user_id") as client:
                return await asyncio.gather(
                    *(client.recommend("u1", features={"age": 1.0 * n}, k=1) for n in range(200))
                )

        answers = asyncio.run(ask_all())
        assert [answer.scores[0] for answer in answers] == [4.0 + number for number in range(200)]


class TestRestRetrievalClient(ClientContract):
    has_version = False

    def make_client(self, server: RunningModelServer, **options: Any) -> RestRetrievalClient:
        return RestRetrievalClient(server.rest_url, **options)

    def test_the_url_must_fit(self) -> None:
        for url in ("127.0.0.1:8501", "http://h:99999", "http://[::1", None, 7):
            with pytest.raises(InvalidArgumentError, match="url must be like 'http://host:8501'"):
                RestRetrievalClient(url)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="tls needs an https URL"):
            RestRetrievalClient("http://127.0.0.1:8501", tls=TlsOptions())
