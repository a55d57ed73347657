"""The page of the explorer for one state."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from components.errors import BatchError
from components.interactions.errors import IngestError
from models.features.spec import HISTORY_TYPES_KEY
from pipeline.config.project import PipelineConfig
from pipeline.errors import PipelineError
from pipeline.explore.choices import Choices
from pipeline.explore.rankers import Recommended, shares_of, with_reasons
from pipeline.explore.source import FeatureRows, Histories, Items
from pipeline.explore.state import MAX_K, State
from pipeline.report.template import template
from pipeline.source_lookup import as_text, served_ids
from serving.clients.query import Query
from serving.errors import LaunchError, ServingError

_HERE = Path(__file__).parent
_NUM_FOUND, _NUM_POPULAR = 12, 5
_NUM_QUERY_IDS = 1000
# Errors of a state: the page shows their message instead of a list.
_ERRORS = (PipelineError, IngestError, BatchError, ServingError, LaunchError, OSError)


@dataclass
class Answer:
    """A list of items, or the problem because of which there is none.

    Attributes:
        key: Key of the ranker.
        ranker: Its description.
        milliseconds: Time of the answer with its reasons.
        num_left_out: Number of items of the history whose share was computed.
        why: These items with their shares in the score of `State.why`, the largest first.
    """

    key: str
    ranker: str = ""
    items: Sequence[Recommended] = ()
    problem: str = ""
    milliseconds: float = 0.0
    num_left_out: int = 0
    why: Sequence[tuple[str, float]] = ()


class Explorer:
    """A project, its data and its rankers.

        Explorer(config, histories, items, choices).page(State(query_id="42"))

    Attributes:
        query_ids: IDs of the queries that have events.
    """

    def __init__(
        self, config: PipelineConfig, histories: Histories, items: Items, choices: Choices
    ) -> None:
        self._config, self._histories, self._items = config, histories, items
        self._choices = choices
        self._queries = FeatureRows(config, "queries")
        self.query_ids = histories.query_ids
        self._template = template(_HERE / "explore.html.j2", shown=_shown)
        option = Markup('<option value="{}">')
        self._options = Markup("").join(map(option.format, self.query_ids[:_NUM_QUERY_IDS]))

    def random_query(self) -> str:
        """Return the ID of a query that has events, or ""."""
        return random.choice(self.query_ids) if self.query_ids else ""

    def page(self, state: State) -> str:
        """Return the page as HTML. All text of the data and of the URL is escaped."""
        (query_id,) = served_ids(self._config, [state.query_id])
        known = self._histories.of(query_id)
        history = state.history(known)
        inputs = self._queries.inputs(query_id)
        if self._histories.has_types:
            types = state.history(known, self._histories.types_of(query_id))
            inputs[HISTORY_TYPES_KEY] = types if known else ("",) * len(history)
        query = Query(
            query_id,
            history,
            inputs,
            (*state.excluded, *(() if state.include_seen else history)),
            state.filters,
        )
        keys = [state.model, *([state.compared] if state.compared else [])]
        answers = [self._recommended(key, query, state) for key in keys]
        features = self._queries.values(query_id)
        return self._template.render(
            config=self._config,
            items=self._items,
            choices=self._choices.labels,
            state=state,
            known=frozenset(known),
            history=history[::-1],
            features={
                name: as_text(of, self._queries.features[name]) for name, of in features.items()
            },
            answers=answers,
            ranks=[{of.item: row for row, of in enumerate(answer.items, 1)} for answer in answers],
            similar=self._similar(state) if state.similar_to else None,
            found=self._items.search(state.text, _NUM_FOUND if state.text else _NUM_POPULAR),
            query_options=self._options,
            num_queries=len(self.query_ids),
            max_k=min(MAX_K, self._config.index.k),
        )

    def _recommended(self, key: str, query: Query, state: State) -> Answer:
        answer = Answer(key)

        def ask() -> Sequence[Recommended]:
            ranker, answer.ranker = self._choices.ranker(key)
            started = time.perf_counter()
            found = ranker.recommend(query, state.k)
            items = [*(of.item for of in found), *([state.why] if state.why else [])]
            left_out, shares = shares_of(ranker, query, items, self._config.model.max_history)
            if state.why:
                pairs = zip(left_out, shares[:, -1].tolist(), strict=True)
                answer.why = sorted(pairs, key=lambda pair: -pair[1])
            answer.milliseconds = 1000 * (time.perf_counter() - started)
            answer.num_left_out = len(left_out)
            return with_reasons(found, left_out, shares)

        return _answered(answer, ask)

    def _similar(self, state: State) -> Answer:
        answer = Answer(state.model)

        def ask() -> Sequence[Recommended]:
            model, answer.ranker = self._choices.model(state.model)
            started = time.perf_counter()
            found = model.similar(state.similar_to, state.filters, state.k)
            answer.milliseconds = 1000 * (time.perf_counter() - started)
            return found

        return _answered(answer, ask)


def _answered(answer: Answer, ask: Callable[[], Sequence[Recommended]]) -> Answer:
    try:
        answer.items = ask()
    except _ERRORS as error:
        answer.problem = str(error)
    return answer


def _shown(value: Any) -> str:
    """Return a score or another output of a model as text; "" if it is missing."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.3f}"
    return str(value)
