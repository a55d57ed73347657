from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.explore.state import State

_NAMES = st.sampled_from([*"qhrxkmcswt", "seen", "f.genres", "f.", "other"])


def pairs_of(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing=len(url) > 3)


@settings(deadline=None)
@given(st.lists(st.tuples(_NAMES, st.text(st.characters(), max_size=4)), max_size=12))
def test_every_state_survives_its_own_url(pairs: list[tuple[str, str]]) -> None:
    state = State.read(pairs)
    assert State.read(pairs_of(state.url())) == state
    # A page redirects to the URL of its state, so a second redirect must not differ.
    assert pairs_of(state.url()) == state.pairs()


@pytest.mark.parametrize(
    ("text", "k"), [("7", 7), ("0", 1), ("1000", 100), ("-1", 10), ("x", 10), ("²", 10)]
)
def test_k_is_a_number_that_can_be_shown(text: str, k: int) -> None:
    assert State.read([("k", text)]).k == k


def test_the_history_is_the_known_one_without_removed_items_and_with_added_ones() -> None:
    state = State(query_id="1", added=("c", "c"), removed=("a",))
    assert state.history(["a", "b", "a"]) == ("b", "c", "c")
    assert state.history(["a", "b", "a"], ["view", "buy", "view"]) == ("buy", "", "")
    assert State.read(pairs_of(state.adding("a"))) == State(query_id="1", added=("c", "c"))
    assert State.read(pairs_of(state.adding("d"))).added == ("c", "c", "d")
    removed = State.read(pairs_of(state.removing("c", known=["a", "b", "c"])))
    assert (removed.added, removed.removed) == ((), ("a", "c"))
