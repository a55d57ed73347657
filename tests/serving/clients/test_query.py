from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.clients import Query, SignatureSpec, TensorSpec
from serving.clients.messages import GrpcProtocol
from serving.clients.model import ModelChoice, Tensor, encode_text
from serving.clients.query import build_inputs, find_id_name
from serving.clients.rest_client import RestProtocol
from serving.errors import InvalidArgumentError, ServingError

STRING, FLOAT = TensorSpec("string", (None,)), TensorSpec("float", (None,))
STRINGS = TensorSpec("string", (None, None))


def signature(**inputs: TensorSpec) -> SignatureSpec:
    return SignatureSpec("serving_default", inputs, {})


FULL = signature(user_id=STRING, age=FLOAT, country=STRING, genres=STRINGS, history=STRINGS)


def test_left_out_inputs_are_filled_as_unknown() -> None:
    inputs = build_inputs(FULL, "user_id", [Query("u1"), Query("u2")])
    assert inputs["user_id"] == Tensor("string", (2,), ["u1", "u2"])
    assert inputs["country"] == Tensor("string", (2,), ["", ""])
    assert inputs["genres"] == inputs["history"] == Tensor("string", (2, 0), [])
    assert inputs["age"].shape == (2,)
    assert all(math.isnan(age) for age in inputs["age"].values)


def test_lists_of_a_batch_are_padded_at_the_end() -> None:
    queries = [Query("u1", ["a", "b"]), Query("u2", [], {"genres": ["x"]}), Query("u3", ["c"])]
    inputs = build_inputs(FULL, "user_id", queries)
    assert inputs["history"] == Tensor("string", (3, 2), ["a", "b", "", "", "c", ""])
    assert inputs["genres"] == Tensor("string", (3, 1), ["", "x", ""])


def test_a_fixed_width_is_kept_and_not_exceeded() -> None:
    fixed = signature(user_id=STRING, history=TensorSpec("string", (None, 3)))
    inputs = build_inputs(fixed, "user_id", [Query("u1", ["a"])])
    assert inputs["history"] == Tensor("string", (1, 3), ["a", "", ""])
    with pytest.raises(InvalidArgumentError, match="'history' must have at most 3 items, got 4"):
        build_inputs(fixed, "user_id", [Query("u1", ["a"] * 4)])


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (Query("u", features={"contry": "x"}), "no feature 'contry'; did you mean 'country'?"),
        (Query("u", features={"zzz": 1}), "no feature 'zzz'; it has 'age', 'country', 'genres'"),
        (Query("u", features={"user_id": "v"}), "no feature 'user_id'"),
        (Query("u", features={"age": "old"}), "'age' must be a float, got 'old' of type str"),
        (Query("u", features={"age": True}), "'age' must be a float, got True of type bool"),
        (Query("u", features={"country": 7}), "'country' must be a string, got 7 of type int"),
        (Query("u", features={"genres": "x"}), "'genres' must be a list of strings, got 'x'"),
        (Query("u", ["a", 1]), "'history' must be a list of strings"),  # type: ignore[list-item]
        (Query(7), "'user_id' must be a string, got 7"),  # type: ignore[arg-type]
        (Query("u", exclude=["a"]), "'serving_default' takes no exclude"),
    ],
)
def test_wrong_queries_are_refused_with_the_reason(query: Query, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        build_inputs(FULL, "user_id", [query])
    assert text in caught.value.message


def test_a_data_frame_is_not_read_as_the_names_of_its_columns() -> None:
    frame: Any = pd.DataFrame({"item": ["a", "b"]})
    with pytest.raises(InvalidArgumentError, match="'history' must be a list of strings"):
        Query("u", frame)
    inputs = build_inputs(FULL, "user_id", [Query("u", frame["item"])])
    assert inputs["history"].values == ["a", "b"]


def test_a_time_is_optional_and_must_be_an_integer() -> None:
    timed = signature(user_id=STRING, time=TensorSpec("int64", (None,)))
    inputs = build_inputs(timed, "user_id", [Query("u"), Query("u", time=1_700_000_000)])
    assert inputs["time"] == Tensor("int64", (2,), [-(2**63), 1_700_000_000])
    with pytest.raises(InvalidArgumentError, match="'time' must be a int64"):
        build_inputs(timed, "user_id", [Query("u", time=1.5)])  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="takes no time"):
        build_inputs(FULL, "user_id", [Query("u", time=1)])


def test_a_missing_integer_is_refused() -> None:
    counted = signature(user_id=STRING, visits=TensorSpec("int32", (None,)))
    with pytest.raises(InvalidArgumentError, match=r"'visits' must be given.*int32"):
        build_inputs(counted, "user_id", [Query("u")])
    inputs = build_inputs(counted, "user_id", [Query("u", features={"visits": 3})])
    assert inputs["visits"] == Tensor("int32", (1,), [3])


def test_an_ambiguous_id_must_be_named() -> None:
    one: Any = signature(user_id=STRING, age=FLOAT, history=STRINGS, exclude=STRINGS)
    assert find_id_name(one, None, "query_id_name") == "user_id"
    with pytest.raises(InvalidArgumentError, match=r"'country', 'user_id'.*query_id_name"):
        find_id_name(FULL, None, "query_id_name")
    assert find_id_name(FULL, "user_id", "query_id_name") == "user_id"
    with pytest.raises(InvalidArgumentError, match=r"'country', 'user_id'.*got 'user'"):
        find_id_name(FULL, "user", "query_id_name")


FILTERED = signature(user_id=STRING, allow_genres=STRINGS, allow_country=STRINGS, exclude=STRINGS)


def test_filters_become_lists_of_allowed_values_and_none_allows_all() -> None:
    queries = [
        Query("u1", filters={"genres": ["x", "y"]}),
        Query("u2", filters={"country": ["z"], "genres": []}),
    ]
    inputs = build_inputs(FILTERED, "user_id", queries)
    assert inputs["allow_genres"] == Tensor("string", (2, 2), ["x", "y", "", ""])
    assert inputs["allow_country"] == Tensor("string", (2, 1), ["", "z"])


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ({"genre": ["x"]}, "has no filter 'genre'; did you mean 'genres'?"),
        ({"zzz": ["x"]}, "has no filter 'zzz'; it has 'country', 'genres'"),
        ({"genres": "x"}, "'allow_genres' must be a list of strings, got 'x'"),
    ],
)
def test_wrong_filters_are_named(filters: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(text)):
        build_inputs(FILTERED, "user_id", [Query("u", filters=filters)])


def test_only_exclusions_and_filters_with_values_restrict_a_query() -> None:
    assert Query("u", exclude=["a"]).is_restricted
    assert Query("u", filters={"genres": ["x"]}).is_restricted
    assert not Query("u", ["a"], filters={"genres": []}).is_restricted


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(st.characters(), max_size=3)
    | st.binary(max_size=3)
    | st.sampled_from([np.float32(2), np.array(["a"]), np.array(3), np.array([[1.5]]), object()]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=5,
)


@given(JUNK, JUNK, st.dictionaries(st.sampled_from(list(FULL.inputs)), JUNK) | JUNK)
def test_any_value_is_sent_or_refused_by_a_serving_error(
    query_id: Any, history: Any, features: Any
) -> None:
    with contextlib.suppress(ServingError):
        inputs = build_inputs(FULL, "user_id", [Query(query_id, history, features)])
        GrpcProtocol(ModelChoice("m")).predict(FULL, inputs)
        encode_text(
            json.dumps(RestProtocol("", ModelChoice("m")).predict(FULL, inputs).request.body)
        )
