"""The state of the page, all of which is in its URL."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlencode

_FILTER = "f."
DEFAULT_K, MAX_K = 10, 100


@dataclass(frozen=True)
class State:
    """What the page shows.

    Each attribute is a parameter of the URL with the name in `_NAMES`, and each filter one with the
    name `f.FEATURE`.

    Attributes:
        query_id: ID of a known query, or "".
        added: Candidates that were added to the end of the history.
        removed: Candidates that were removed from the history of the known query.
        excluded: Candidates that must not be recommended.
        filters: Allowed values by feature.
        k: Number of recommendations.
        include_seen: Whether candidates of the history may be recommended.
        model: Key of the ranker (`choices.Choices`); "" for the default.
        compared: Key of the ranker to compare with; "" for none.
        similar_to: Candidate whose similar ones are shown, or "".
        why: Candidate of which all shares in its score are shown, or "".
        text: Text of the search for items.
    """

    query_id: str = ""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    filters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    k: int = DEFAULT_K
    include_seen: bool = False
    model: str = ""
    compared: str = ""
    similar_to: str = ""
    why: str = ""
    text: str = ""

    @classmethod
    def read(cls, pairs: Iterable[tuple[str, str]]) -> "State":
        """Return the state of a URL; unknown parameters and invalid numbers are ignored."""
        given: dict[str, list[str]] = {}
        for name, value in pairs:
            # Text without a UTF-8 form cannot be an ID, and could be neither sent nor shown.
            if value and _is_text(name + value):
                given.setdefault(name, []).append(value)
        attributes: dict[str, Any] = {}
        for attribute, name in _NAMES.items():
            if name in given:
                default = getattr(cls, attribute)
                values = given[name]
                if isinstance(default, tuple):
                    attributes[attribute] = tuple(dict.fromkeys(values) if name != "h" else values)
                elif isinstance(default, bool):
                    attributes[attribute] = values[-1] == "1"
                elif isinstance(default, int):
                    attributes[attribute] = _number(values[-1])
                else:
                    attributes[attribute] = values[-1].strip()
        filters = {
            name.removeprefix(_FILTER): tuple(dict.fromkeys(values))
            for name, values in given.items()
            if name.startswith(_FILTER)
        }
        return cls(**attributes, filters=filters)

    def pairs(self, *without: str) -> list[tuple[str, str]]:
        """Return the parameters of the URL, except those with a name or prefix in `without`."""
        found: list[tuple[str, str]] = []
        for attribute, name in _NAMES.items():
            value = getattr(self, attribute)
            if value != getattr(State, attribute):
                values = value if isinstance(value, tuple) else (str(value),)
                found += [(name, "1" if of == "True" else of) for of in values]
        found += [(_FILTER + name, of) for name, values in self.filters.items() for of in values]
        return [(name, of) for name, of in found if not name.startswith(without or ("\0",))]

    def url(self, **changes: Any) -> str:
        """Return the relative URL of this state with some attributes changed."""
        return "./?" + urlencode(replace(self, **changes).pairs())

    def history(self, known: Iterable[str], values: Iterable[str] = ()) -> tuple[str, ...]:
        """Return the history, oldest first; `known` is that of the known query.

        With `values` of each event of `known`, return these instead, and "" for added candidates.
        """
        removed = set(self.removed)
        if values:
            pairs = zip(known, values, strict=True)
            return (*(of for item, of in pairs if item not in removed), *("" for _ in self.added))
        return (*(item for item in known if item not in removed), *self.added)

    def adding(self, item: str) -> str:
        """Return the URL after adding an item to the history."""
        kept = tuple(of for of in self.removed if of != item)
        if kept != self.removed:
            return self.url(removed=kept)
        return self.url(added=(*self.added, item))

    def removing(self, item: str, known: Collection[str]) -> str:
        """Return the URL after removing an item from the history."""
        added = tuple(of for of in self.added if of != item)
        removed = self.removed if item not in known else (*self.removed, item)
        return self.url(added=added, removed=tuple(dict.fromkeys(removed)))


_NAMES = {
    "query_id": "q",
    "added": "h",
    "removed": "r",
    "excluded": "x",
    "k": "k",
    "include_seen": "seen",
    "model": "m",
    "compared": "c",
    "similar_to": "s",
    "why": "w",
    "text": "t",
}
assert {*_NAMES, "filters"} == {of.name for of in fields(State)}


def _number(text: str) -> int:
    return min(max(int(text), 1), MAX_K) if text.isascii() and text.isdecimal() else DEFAULT_K


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
